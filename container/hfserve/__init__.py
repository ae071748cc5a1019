"""hfserve: any Hugging Face model behind SageMaker's /ping and /invocations.

What user code may import: the errors a hook raises to choose the status of its answer.
"""

from hfserve.errors import (
    BadRequest,
    DeadlineExceeded,
    InvalidInput,
    NotAcceptable,
    NotFound,
    OutOfMemory,
    Overloaded,
    PayloadTooLarge,
    ServeError,
    UnsupportedMediaType,
)

__version__ = "0.1.0"

__all__ = [
    "BadRequest",
    "DeadlineExceeded",
    "InvalidInput",
    "NotAcceptable",
    "NotFound",
    "OutOfMemory",
    "Overloaded",
    "PayloadTooLarge",
    "ServeError",
    "UnsupportedMediaType",
]
