def model_fn(model_dir, context):
    return [model_dir, context]


def input_fn(body, content_type, ctx=None):
    return [body, content_type, ctx]


def predict_fn(data, model, *, context):
    return [data, model, context]


def output_fn(prediction, accept, anything):
    return [prediction, accept, anything]
