import functools
from operator import mul


class Loader:
    def __init__(self, model_dir):
        self.model_dir = model_dir


class Reader:
    def __call__(self, body, content_type, context):
        return [body, content_type, context]


def loud(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return [function(*args, **kwargs)]

    return wrapper


def scaled(data, model, *, factor):
    return data * model * factor


@loud
def output_fn(prediction, accept):
    return [prediction, accept]


model_fn = Loader
model_warmup_fn = mul
input_fn = Reader()
predict_fn = functools.partial(scaled, factor=10)
predict_batch_fn = lambda items, model, context: [items, model, context]  # noqa: E731
