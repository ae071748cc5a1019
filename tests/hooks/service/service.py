def handle(data, context):
    return [data, context]


def other(data, context):
    return "other"


def lone():
    return None
