"""A model of any family is served from its directory alone, and answers as transformers' own pipeline does."""

import base64
import concurrent.futures
import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

import tiny
from server import Server, assert_error, thoroughly

FAMILIES = [
    "text-classification-bert", "text-classification-distilbert", "text-classification-roberta",
    "text-classification-electra", "text-classification-albert", "text-classification-xlm-roberta",
    "text-classification-deberta-v2", "text-classification-modernbert",
    "token-classification", "fill-mask-roberta", "text-generation-gpt2", "zero-shot-classification",
]  # fmt: skip
USUAL = {
    "text-classification-bert",
    "text-classification-modernbert",
    "token-classification",
    "zero-shot-classification",
}
"""Those that are tried every time; tests/unit has all of them, in process."""
ON_MMS = ["text-classification-deberta-v2", "token-classification", "text-generation-gpt2"]
NOT_FOUND_BY_ITSELF = {"zero-shot-classification"}
"""Its models look like any text classifier of entailment."""

TEXTS = [
    "a",
    "the food was good",
    "bad service",
    "London is in the taste of a good price, not bad",
    "x " * 20,
    "Paris!",
]
PARAMETERS = {
    "text-generation": {"max_new_tokens": 8, "do_sample": False},
    "zero-shot-classification": {"candidate_labels": ["food", "service", "price"]},
    "fill-mask": {"top_k": 3},
}


class Case:
    """A tiny model, a server that serves it, and transformers' pipeline of the same directory."""

    def __init__(self, name, model, server):
        self.task = tiny.task_of(name)
        self.model, self.server = model, server
        self.parameters = PARAMETERS.get(self.task, {})
        self.pipe = transformers.pipeline(self.task, model=str(model), device="cpu", dtype=torch.float32)

    def inputs(self):
        """Several, of mixed sizes."""
        if self.task == "image-classification":
            return [picture(seed, side) for seed, side in enumerate((8, 32, 50, 33))]
        if self.task == "fill-mask":
            return [f"{text} {self.pipe.tokenizer.mask_token}" for text in TEXTS]
        return TEXTS

    def expected(self, one):
        opened = Image.open(io.BytesIO(one)) if isinstance(one, bytes) else one
        return json.loads(json.dumps(self.pipe(opened, **self.parameters), default=float))

    def answer(self, one):
        inputs = base64.b64encode(one).decode() if isinstance(one, bytes) else one
        reply = self.server.post(json={"inputs": inputs, "parameters": self.parameters})
        assert reply.status_code == 200, reply.text
        return reply.json()


def picture(seed, side, form="PNG"):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def near(value):
    """Equal to the same structure whose numbers differ by 1e-4 at most."""
    if isinstance(value, dict):
        return {name: near(each) for name, each in value.items()}
    if isinstance(value, list):
        return [near(each) for each in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The directory of a tiny model, made once."""
    made = {}

    def built(name):
        if name not in made:
            made[name] = tiny.build(name, tmp_path_factory.mktemp("models") / name)
        return made[name]

    return built


@pytest.fixture(
    scope="module",
    params=[
        *(thoroughly(("asgi", name), name not in USUAL) for name in FAMILIES),
        *(thoroughly(("mms", name)) for name in ON_MMS),
    ],
    ids="-".join,
)
def case(request, built):
    """A model that takes text."""
    with _served(*request.param, built) as case:
        yield case


@pytest.fixture(scope="module", params=["asgi", thoroughly("mms")])
def pictures(request, built):
    """A model that takes pictures."""
    with _served(request.param, "image-classification", built) as case:
        yield case


@contextlib.contextmanager
def _served(engine, name, built):
    if engine == "mms" and not (shutil.which("java") and shutil.which("nginx")):
        pytest.skip("nginx and java are not installed")
    flags = ("--task", name) if name in NOT_FOUND_BY_ITSELF else ()
    with Server(built(name), engine=engine, flags=flags) as server:
        yield Case(name, built(name), server)


def test_a_model_is_served_from_its_directory_and_answers_as_transformers_does(case):
    assert case.server.event("ready", "worker-0")["task"] == case.task
    first = case.inputs()[1]
    assert case.answer(first) == near(case.expected(first))


def test_many_at_once_of_mixed_lengths_are_answered_as_each_is_alone(case):
    _ask_many_at_once(case)


def test_a_list_of_mixed_lengths_is_answered_as_each_is_alone(case):
    together = case.server.post(json={"inputs": case.inputs(), "parameters": case.parameters}).json()
    alone = [case.expected(one) for one in case.inputs()]
    assert together == near([one[0] if case.task == "text-classification" else one for one in alone])


def test_a_text_longer_than_the_model_takes_is_cut_or_refused_never_a_failure(case):
    text = f"{case.inputs()[1]} " + "the food was good, " * 50
    reply = case.server.post(json={"inputs": text, "parameters": case.parameters})
    assert reply.status_code == 200 or assert_error(reply, 422, kind="InvalidInput", words=["tokens"])
    if case.task == "text-classification":
        assert reply.json() == near(case.pipe(text, truncation=True))


def test_a_picture_is_classified_as_transformers_does_in_company_too(pictures):
    assert pictures.server.event("ready", "worker-0")["task"] == "image-classification"
    _ask_many_at_once(pictures)


def test_a_picture_may_be_the_body_itself(pictures):
    for form, content_type in (("PNG", "image/png"), ("JPEG", "image/jpeg"), ("PNG", "application/octet-stream")):
        body = picture(7, 40, form)
        reply = pictures.server.post(body, content_type=content_type)
        assert reply.status_code == 200, reply.text
        assert reply.json() == near(pictures.expected(body))
        data_url = f"data:image/{form.lower()};base64,{base64.b64encode(body).decode()}"
        assert pictures.server.post(json={"inputs": data_url}).json() == reply.json()


def test_what_is_no_picture_is_refused_in_words(pictures):
    assert pictures.server.post(b"GIF or so", content_type="image/png").status_code in {400, 422}
    error = assert_error(pictures.server.post(json={"inputs": "https://example.com/cat.png"}), 422)
    assert error["message"].startswith("inputs")


def _ask_many_at_once(case):
    inputs = case.inputs()
    alone = [case.expected(one) for one in inputs]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        together = list(pool.map(case.answer, inputs * 4))
    assert together == near(alone * 4)
