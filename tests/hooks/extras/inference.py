def model_fn(model_dir, device="cpu"):
    return [model_dir, device]


def input_fn(*args, **kwargs):
    return [args, kwargs]


def predict_batch_fn(items, model, top_k=1, context=None, **kwargs):
    return [items, model, top_k, context, kwargs]


def output_fn(prediction, *rest, context):
    return [prediction, rest, context]
