"""A transformers pipeline behind Ray Serve, with the batching that its documentation shows."""

import os
import signal

import ray
from ray import serve
from transformers import pipeline


@serve.deployment
class Classifier:
    def __init__(self):
        self.pipeline = pipeline("text-classification", model=os.environ["MODEL"])

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def classify(self, texts):
        return [[found] for found in self.pipeline(texts, batch_size=len(texts))]

    async def __call__(self, request):
        return await self.classify((await request.json())["inputs"])


if __name__ == "__main__":
    ray.init(include_dashboard=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Classifier.bind(), route_prefix="/invocations")
    print(f"running on http://127.0.0.1:{os.environ['PORT']}", flush=True)
    signal.pause()
