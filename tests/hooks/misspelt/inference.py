def predict_fn(data, model):
    return tokenize_fn(inputs_fn(data))


def inputs_fn(data):
    return data


def tokenize_fn(data):
    return data


def _model_fn(data):
    return data


def ouput_fn(prediction, accept):
    return prediction
