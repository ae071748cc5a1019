"""A transformers pipeline behind LitServe, with the batching that its documentation shows."""

import os

import litserve
from transformers import pipeline


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.classify = pipeline("text-classification", model=os.environ["MODEL"], device=device)

    def decode_request(self, request):
        return request["inputs"]

    def predict(self, texts):
        return self.classify(texts, batch_size=len(texts))

    def encode_response(self, output):
        return [output]


if __name__ == "__main__":
    api = Classifier(max_batch_size=8, batch_timeout=0.01, api_path="/invocations")
    litserve.LitServer(api, accelerator="cpu").run(host="127.0.0.1", port=int(os.environ["PORT"]))
