"""Code written for SageMaker's Hugging Face inference toolkit is served as it is, on every engine."""

import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import tiny
from hfserve import artifacts
from server import Server, assert_error

pytestmark = pytest.mark.once

PAGE = Path(__file__).parents[2] / "docs" / "hooks.md"
SHOWN = dict(re.findall(r"^```python\n# code/(\w+)\.py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
"""The code that docs/hooks.md shows, by the name of its file."""
ASKED = {"question": "Where does Ada live?", "context": "My name is Ada and I live in London."}
DROPPED = """
from sagemaker_huggingface_inference_toolkit import content_types, decoder_encoder

def input_fn(body, content_type):
    return decoder_encoder.decode(body, content_type)

def predict_fn(data, model):
    inputs = data.pop("inputs", data)
    return model(inputs, **data.pop("parameters", {}))

def output_fn(prediction, accept):
    return decoder_encoder.encode(prediction, accept)
"""


@pytest.fixture(scope="module")
def hooked(engine, tmp_path_factory):
    """The tiny model of a task that transformers 5 dropped, with a predict_fn and no model_fn."""
    model = tiny.build("question-answering", tmp_path_factory.mktemp("hooked"))
    (model / "code").mkdir()
    (model / "code" / "inference.py").write_text(DROPPED)
    with Server(model, engine=engine) as server:
        yield server


@pytest.fixture(scope="module")
def service(engine, tmp_path_factory):
    """The demo model, served by the service that the documentation shows, with the hooks that it shows beside it."""
    model = tmp_path_factory.mktemp("service") / "model"
    shutil.copytree(artifacts.DEMO, model)
    (model / "code").mkdir()
    (model / "code" / "service.py").write_text(SHOWN["service"])
    with Server(model, engine=engine, SAGEMAKER_HANDLER="service:handle") as server:
        yield server


def test_hooks_that_use_the_toolkit_read_and_write_every_form(hooked):
    answer = hooked.post(json={"inputs": ASKED}).json()
    assert set(answer) == {"score", "start", "end", "answer"}
    assert ASKED["context"][answer["start"] : answer["end"]] == answer["answer"]
    assert len(hooked.post(json={"inputs": ASKED, "parameters": {"top_k": 2}}).json()) == 2
    table = "question,context\n" + f"{ASKED['question']},{ASKED['context']}\n" * 2
    reply = hooked.post(table, content_type="text/csv; charset=utf-8", accept="text/csv, application/json;q=0.5")
    assert reply.headers["content-type"].startswith("text/csv")
    assert reply.text.startswith("score,")
    assert len(reply.text.splitlines()) == 3


def test_hooks_that_use_the_toolkit_answer_with_honest_statuses(hooked):
    pickled = BytesIO()
    np.save(pickled, np.array([{"a": 1}]), allow_pickle=True)
    assert_error(hooked.post("{", content_type="application/json"), 400, kind="BadRequest")
    assert_error(hooked.post(pickled.getvalue(), content_type="application/x-npy"), 400, words=["never objects"])
    assert_error(hooked.post(b"x", content_type="application/x-thing"), 415, kind="UnsupportedMediaType")
    assert_error(hooked.post(json={"inputs": ASKED}, accept="application/x-npy"), 406, kind="NotAcceptable")
    assert_error(hooked.post(json={"inputs": {"question": 1}}), 422, kind="InvalidInput")


def test_a_service_of_the_toolkit_keeps_the_steps_that_it_does_not_override(service):
    assert service.post(json={"inputs": "I love this &amp; that"}).json()[0]["label"] == "POSITIVE"
    plain = service.post(json={"inputs": "I love this & that"}).json()
    assert service.post(json={"inputs": "I love this &amp; that"}).json() == plain
    assert len(service.post("inputs\nI love this\nI hate it\n", content_type="text/csv").json()) == 2
    reply = service.post(json={"inputs": "I love this"}, accept="text/csv")
    assert reply.text.startswith("label,score\r\nPOSITIVE,") and reply.headers["content-type"].startswith("text/csv")


def test_a_service_of_the_toolkit_answers_with_honest_statuses(service):
    assert_error(service.post("{", content_type="application/json"), 400, kind="BadRequest")
    assert_error(service.post(json={"inputs": 5}), 422, kind="InvalidInput")
    assert_error(service.post(json={"inputs": "a"}, accept="application/x-npy"), 406, kind="NotAcceptable")


def test_the_hooks_that_the_documentation_shows_are_served(engine, tmp_path):
    shutil.copytree(artifacts.DEMO, tmp_path / "model")
    (tmp_path / "model" / "code").mkdir()
    (tmp_path / "model" / "code" / "inference.py").write_text(SHOWN["inference"])
    with Server(tmp_path / "model", engine=engine) as server:
        assert server.post(json={"inputs": "I love this"}).json()[0]["label"] == "POSITIVE"
        assert server.post("inputs\nI love this\n", content_type="text/csv").json()[0]["label"] == "POSITIVE"


def test_a_service_of_the_toolkit_that_cannot_load_ends_the_start(engine, model_with):
    source = "from sagemaker_huggingface_inference_toolkit.handler_service import HuggingFaceHandlerService\n"
    source += "handle = HuggingFaceHandlerService().handle\n"
    with Server(model_with(source), engine=engine, ready=False, SAGEMAKER_HANDLER="inference:handle") as server:
        assert server.process.wait(60) == 3
        server._reader.join(5)
    assert "handle raised LoadError" in server.lines[-1]["event"]
