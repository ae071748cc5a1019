def input_fn(body, content_type):
    return body


def transform_fn(model, body, content_type, accept):
    return body


def output_fn(prediction, accept):
    return prediction
