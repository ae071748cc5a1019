def transform_fn(model, body, content_type, accept):
    return [model, body, content_type, accept]
