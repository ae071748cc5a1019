def load(path):
    return path


def predict(data):
    return data


def transform(data):
    return data
