"""The names of SageMaker's Hugging Face inference toolkit, for code that was written for it; the work is hfserve's."""
