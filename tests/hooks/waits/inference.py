import asyncio


async def input_fn(body, content_type):
    await asyncio.sleep(0)
    return [body, content_type]


async def predict_fn(data, model, context):
    return [data, model, context]


async def output_fn(prediction, accept):
    yield prediction
