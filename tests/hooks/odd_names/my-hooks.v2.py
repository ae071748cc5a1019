from neighbour import Thing


def model_fn(model_dir):
    return Thing(model_dir)
