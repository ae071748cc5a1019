def model_fn(model_dir, device, extra):
    return None


def input_fn(body):
    return body


def predict_fn(data: dict, model, *, threshold):
    return data


def output_fn(prediction, accept, device, context=None):
    return prediction


def pre_model_fn():
    return None
