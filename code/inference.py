"""Your own inference code: copy this file to `code/inference.py` of your model and keep the functions you need.

Leave a function out and hfserve's own does its part. Each may take one more argument, `context`, for the request's
headers (`context.headers`) and to set the answer's (`context.set_response_header(0, name, value)`).
"""

import json

from transformers import pipeline

from hfserve import UnsupportedMediaType


def model_fn(model_dir):
    """Load the model, once per worker."""
    return pipeline("text-classification", model=model_dir)


def input_fn(body, content_type):
    """The request's body (str for JSON and CSV, bytes otherwise) as what predict_fn takes."""
    if content_type != "application/json":
        raise UnsupportedMediaType(f"send application/json, not {content_type}")
    return json.loads(body)["inputs"]


def predict_fn(data, model):
    """The prediction for one request."""
    return model(data)


def output_fn(prediction, accept):
    """The prediction as the answer's body; `return body, content_type` to name its type."""
    return json.dumps(prediction)
