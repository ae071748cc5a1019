def pre_model_fn(model_dir):
    return ["pre", model_dir]


def model_fn(model_dir):
    return ["model", model_dir]


def model_warmup_fn(model_dir, model):
    return ["warmup", model_dir, model]


def input_fn(body, content_type):
    return ["input", body, content_type]


def predict_fn(data, model):
    return ["predict", data, model]


def output_fn(prediction, accept):
    return ["output", prediction, accept]
