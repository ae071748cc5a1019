"""A transformers pipeline behind FastAPI, as one writes it in ten lines, with torch's defaults."""

import os

from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

app = FastAPI()
classify = pipeline("text-classification", model=os.environ["MODEL"])


class Body(BaseModel):
    inputs: str


@app.post("/invocations")
def invoke(body: Body):
    return classify(body.inputs)
