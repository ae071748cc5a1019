"""The playground and the docs in a real browser: a request is made, its answer drawn, and the code for it runs."""

import ast
import base64
import contextlib
import functools
import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from PIL import Image
from playwright.sync_api import expect

import tiny
from browser import Visit, chromium
from hfserve import openapi
from hfserve.settings import Options
from hfserve.tasks import examples, table
from server import Server, assert_error, thoroughly

AWKWARD = 'It\'s "good" for $5 `now` \\ — 100% 🍲\nand <b>cheap</b>'
TASKS = (
    "question-answering",
    "token-classification",
    "image-classification",
    "text-generation-llama",
    "feature-extraction",
)
PNG = "img[src^='data:image/png']"
SPEAKS = """
import pathlib, time

def model_fn(model_dir):
    return pathlib.Path(model_dir)

def predict_fn(data, model):
    yield "one "
    while not (model / "go").exists():
        time.sleep(0.01)
    yield "two"
"""
LOADS_LATE = """
import pathlib, time

def model_fn(model_dir):
    while not (pathlib.Path(model_dir) / "go").exists():
        time.sleep(0.01)
    return lambda inputs: [{"label": inputs, "score": 0.25}]
"""
SDK = """
import json, requests

class HuggingFaceModel:
    def __init__(self, *, image_uri, model_data, env, role):
        assert env == {"HF_TASK": "image-classification"}

    def deploy(self, *, initial_instance_count, instance_type):
        return self

    def predict(self, data):
        return requests.post("URL/invocations", json=data).json()
"""
"""As much of the SageMaker SDK as the code needs, in the place of an endpoint."""


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser):
    """Open pages of a server; in the end all of them have been quiet."""
    visits = []

    def make(server, path="/", *, wait=True, **settings):
        page = browser.new_page(**settings)
        visits.append(Visit(page, server.url))
        return visits[-1].open(path) if wait else visits[-1]

    yield make
    for each in visits:
        each.page.close()
        each.assert_quiet()


@pytest.fixture(scope="module")
def demo():
    """The demo model, with nothing in front."""
    with Server(engine="bare", HFSERVE_MAX_BODY="3000000") as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Start a server of a tiny model when it is first asked for, with nothing in front."""
    with contextlib.ExitStack() as servers:

        @functools.cache
        def served(name):
            model = tiny.build(name, tmp_path_factory.mktemp("model"))
            return servers.enter_context(Server(model, engine="bare"))

        yield served


@pytest.fixture(scope="module", params=TASKS)
def task(request, served):
    """A tiny model of each task."""
    server = served(request.param)
    server.task = tiny.task_of(request.param)
    return server


def _example(server):
    document = server.client.get("/openapi.json").json()
    return document["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["examples"][
        "example"
    ]["value"]


def _labels(page, example, answer):
    assert page.texts("#answer .bars .label") == [row["label"] for row in answer]
    assert page.figures() == [row["score"] for row in answer]


def _entities(page, example, answer):
    assert len(answer) > 0
    assert page.figures() == [row["score"] for row in answer]
    text = example["inputs"]
    marked = "".join(_own_texts(page, "#answer mark")).replace(" ", "")
    assert marked == "".join(text[row["start"] : row["end"]] for row in answer).replace(" ", "")
    assert _own_texts(page, "#answer .marked") != []


def _own_texts(page, selector):
    """The texts of elements without their tags."""
    return page.page.locator(selector).evaluate_all(
        "all => all.map(one => [...one.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join(''))"
    )


def _span(page, example, answer):
    assert page.texts("#answer mark") == [answer["answer"]]
    assert page.texts("#answer .marked") == [example["inputs"]["context"]]
    assert page.figures() == [answer["score"]]


def _text(page, example, answer):
    assert page.texts("#answer .text") == [answer[0]["generated_text"]]
    assert page.texts("#answer .given") == [example["inputs"]]


def _vectors(page, example, answer):
    shape = [len(answer), len(answer[0]), len(answer[0][0])]
    assert page.texts("#answer .shape") == [" × ".join(map(str, shape))]
    assert page.all("#answer canvas", "width") == [str(shape[2])]
    assert page.all("#answer canvas", "height") == [str(shape[1])]
    assert [float(word) for word in page.texts("#answer .code")[0].split()[:8]] == pytest.approx(
        answer[0][0][:8], abs=1e-4
    )


DRAWN = {
    "question-answering": _span, "token-classification": _entities, "image-classification": _labels,
    "text-generation": _text, "feature-extraction": _vectors,
}  # fmt: skip
"""For each task what its answer must look like."""


def test_the_example_of_a_task_runs_and_its_answer_is_drawn(visit, task):
    page = visit(task)
    if task.task == "text-generation":
        page.page.get_by_label("do_sample").select_option("false")
        page.page.locator("#accept").select_option("application/json")
    sent, reply = page.run()
    example, answer = _example(task), reply.json()
    assert sent.post_data_json["inputs"] == example["inputs"]
    assert answer == task.post(json=sent.post_data_json).json()
    DRAWN[task.task](page, example, answer)
    assert page.texts("#status .number") == ["200"]
    assert json.loads(page.page.locator("#raw").text_content()) == answer


def test_the_demo_draws_its_labels(visit, demo):
    page = visit(demo)
    expect(page.page.get_by_role("heading", level=1)).to_have_text("Text classification")
    page.page.get_by_label("top_k").fill("2")
    sent, reply = page.run()
    assert sent.post_data_json == {**_example(demo), "parameters": {"top_k": 2}}
    assert reply.json() == demo.post(json=sent.post_data_json).json()
    assert len(reply.json()) == 2
    _labels(page, None, reply.json())


def test_every_kind_of_control_is_sent_and_what_is_empty_is_not(visit, demo):
    page = visit(demo)
    page.page.get_by_label("top_k").fill("1")
    page.page.get_by_label("function_to_apply").select_option("sigmoid")
    page.page.get_by_label("truncation").select_option("false")
    sent, _ = page.run()
    assert sent.post_data_json["parameters"] == {"top_k": 1, "function_to_apply": "sigmoid", "truncation": False}
    page.page.get_by_label("top_k").fill("")
    page.page.get_by_label("truncation").select_option("")
    assert page.run()[0].post_data_json["parameters"] == {"function_to_apply": "sigmoid"}


def test_another_form_of_the_input_can_be_chosen(visit, demo):
    page = visit(demo)
    page.page.get_by_role("radio", name="text pair").check()
    page.page.get_by_label("text", exact=True).last.fill("good")
    assert page.run()[0].post_data_json["inputs"] == {"text": "good"}


def test_a_number_out_of_bounds_is_not_sent(visit, demo):
    page = visit(demo)
    control = page.page.get_by_label("top_k")
    control.fill("-5")
    page.page.get_by_role("button", name="Run").click()
    expect(page.page.locator("#answer .error")).to_contain_text("top_k")
    expect(control).to_be_focused()
    assert not any(url.endswith("/invocations") for url in page.asked)


def test_an_error_is_shown_in_the_servers_words(visit, demo):
    page = visit(demo)
    page.page.get_by_role("radio", name="JSON").check()
    for body, status in (('{"inputs": ', 400), ('{"inputs": "x", "parameters": {"no_such": 1}}', 422)):
        page.page.get_by_label("Body").fill(body)
        sent, reply = page.run()
        assert (sent.post_data, reply.status) == (body, status)
        expect(page.page.get_by_role("alert")).to_contain_text(reply.json()["error"]["message"])
        expect(page.page.get_by_role("alert")).to_contain_text(reply.json()["error"]["request_id"])
        assert page.texts("#status .number") == [str(status)]


def test_form_and_json_tell_each_other(visit, demo):
    page = visit(demo)
    page.page.get_by_label("Input", exact=True).fill(AWKWARD)
    page.page.get_by_label("top_k").fill("2")
    page.page.get_by_role("radio", name="JSON").check()
    body = page.page.get_by_label("Body")
    assert json.loads(body.input_value()) == {"inputs": AWKWARD, "parameters": {"top_k": 2}}
    body.fill('{"inputs": "other", "parameters": {"top_k": 1}}')
    page.page.get_by_role("radio", name="form").check()
    expect(page.page.get_by_label("Input", exact=True)).to_have_value("other")
    expect(page.page.get_by_label("top_k")).to_have_value("1")


def test_several_inputs_get_an_answer_each(visit, demo):
    page = visit(demo)
    page.page.get_by_role("radio", name="JSON").check()
    page.page.get_by_label("Body").fill('{"inputs": ["good", "bad"]}')
    answer = page.answer()
    assert page.texts("#answer h3") == ["Input 1", "Input 2"]
    _labels(page, None, answer)


def test_what_a_text_says_is_never_markup(visit, demo):
    page = visit(demo)
    page.page.get_by_role("radio", name="JSON").check()
    page.page.get_by_label("Body").fill('{"inputs": "x", "parameters": {"<img src=x onerror=alert(1)>": 1}}')
    _, reply = page.run()
    assert reply.status == 422
    assert page.page.locator("#answer img").count() == 0


def test_a_truncated_input_is_told(visit, demo):
    page = visit(demo)
    page.page.get_by_label("Input", exact=True).fill("good " * 5000)
    _, reply = page.run()
    assert reply.headers["x-hfserve-truncated"] == "inputs"
    expect(page.page.locator("#truncated")).to_contain_text("inputs")


def test_the_answer_comes_in_the_form_that_is_chosen(visit, demo):
    page = visit(demo)
    page.page.get_by_label("Answer as").select_option("text/csv")
    sent, reply = page.run()
    assert sent.headers["accept"] == "text/csv"
    assert page.page.locator("#answer").inner_text().split() == reply.text().split()


def test_ctrl_enter_runs_and_the_keyboard_reaches_the_tabs(visit, demo):
    page = visit(demo)
    with page.page.expect_response("**/invocations"):
        page.page.get_by_label("Input", exact=True).press("Control+Enter")
    expect(page.page.locator("#answer .bars")).to_be_visible()
    page.page.get_by_role("tab", name="curl").press("ArrowRight")
    expect(page.page.get_by_role("tab", name="Python")).to_be_focused()
    expect(page.page.get_by_role("tab", name="Python")).to_have_attribute("aria-selected", "true")
    expect(page.page.get_by_role("tabpanel")).to_contain_text("import requests")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_fits(visit, demo, scheme):
    page = visit(demo, viewport={"width": 360, "height": 700}, color_scheme=scheme)
    page.run()
    wide, paper = page.page.evaluate(
        "() => [document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]"
    )
    assert wide <= 360
    assert (sum(map(int, paper[4:-1].split(","))) > 384) == (scheme == "light")


# Tasks whose models are not loaded here: their documents are the server's own, their answers are made up


@pytest.fixture
def pretend(visit, demo):
    """Open the playground as if another task were served, which gives one answer."""

    def make(name, answer=None):
        document = openapi.document(table.find(name), Options())
        page = visit(demo, wait=False)
        page.page.route("**/openapi.json", lambda route: route.fulfill(json=document))
        page.page.route("**/invocations", lambda route: route.fulfill(json=answer))
        return page.open()

    return make


OF_EACH_KIND = {task.takes: name for name, task in table.TASKS.items()}.values()


@pytest.mark.parametrize("name", [thoroughly(name, name not in OF_EACH_KIND) for name in table.TASKS])
def test_the_form_of_every_task_sends_its_example(pretend, name):
    page = pretend(name)
    example = table.find(name).example
    assert page.run()[0].post_data_json == example
    page.page.get_by_role("radio", name="JSON", exact=True).check()
    assert page.run()[0].post_data_json == example
    page.page.get_by_role("radio", name="form", exact=True).check()
    assert page.run()[0].post_data_json == example


def _mask(*box):
    mask = Image.new("L", (32, 32))
    mask.paste(255, box)
    return _base64(mask)


def _base64(image):
    with io.BytesIO() as file:
        image.save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()


def test_boxes_lie_over_the_picture(pretend):
    answer = [
        {"score": 0.9, "label": "cat", "box": {"xmin": 8, "ymin": 16, "xmax": 24, "ymax": 32}},
        {"score": 0.4, "label": "dog", "box": {"xmin": 0, "ymin": 0, "xmax": 8, "ymax": 4}},
    ]
    page = pretend("object-detection", answer)
    page.run()
    boxes = page.page.locator("#answer .box")
    expect(boxes).to_have_text(["cat", "dog"])
    picture = page.page.locator("#answer .over img").bounding_box()
    for box, placed in zip([row["box"] for row in answer], [each.bounding_box() for each in boxes.all()], strict=True):
        scale = picture["width"] / 32
        assert placed["x"] - picture["x"] == pytest.approx(box["xmin"] * scale, abs=1)
        assert placed["y"] - picture["y"] == pytest.approx(box["ymin"] * scale, abs=1)
        assert placed["width"] == pytest.approx((box["xmax"] - box["xmin"]) * scale, abs=1)
    _labels(page, None, answer)


def test_masks_are_laid_over_the_picture_and_can_be_hidden(pretend):
    segments = [
        {"score": None, "label": "sky", "mask": _mask(0, 0, 32, 8)},
        {"score": 0.5, "label": "sea", "mask": _mask(0, 8, 32, 32)},
    ]
    page = pretend("image-segmentation", segments)
    page.run()
    layer = page.page.locator("#answer canvas").first
    expect(layer).to_have_attribute("height", "32")
    seen = "(canvas) => [4, 20].map(y => canvas.getContext('2d').getImageData(9, y, 1, 1).data[3])"
    assert layer.evaluate(seen) == [153, 0]
    page.page.get_by_label("sky").uncheck()
    expect(layer).to_be_hidden()
    assert page.figures() == [0.5]


def test_cells_that_answer_are_marked_in_the_table(pretend):
    answer = {"answer": "SUM > 7", "coordinates": [[1, 1]], "cells": ["7"], "aggregator": "SUM"}
    page = pretend("table-question-answering", answer)
    page.run()
    assert page.texts("#answer tbody td") == ["Paris", "12", "Rome", "7"]
    assert page.texts("#answer mark") == ["7"]
    page.page.get_by_role("button", name="Add row").click()
    page.page.get_by_label("Row 3, column 1").fill("Oslo")
    assert page.run()[0].post_data_json["inputs"]["table"] == {
        "City": ["Paris", "Rome", "Oslo"],
        "Sales": ["12", "7", ""],
    }


def test_offsets_count_characters_as_python_does(pretend):
    page = pretend(
        "token-classification", [{"entity_group": "LOC", "score": 0.5, "word": "Rome", "start": 4, "end": 8}]
    )
    page.page.get_by_label("Input", exact=True).fill("🍲🍲a Rome")
    page.run()
    assert _own_texts(page, "#answer mark") == ["Rome"]


@pytest.mark.parametrize(
    ("name", "answer", "labels", "scores"),
    [
        ("zero-shot-classification", {"sequence": "x", "labels": ["price", "taste"], "scores": [0.75, 0.25]},
         ["price", "taste"], [0.75, 0.25]),
        ("fill-mask", [{"score": 0.5, "token": 1, "token_str": "good", "sequence": "it is good"}], ["good"], [0.5]),
        ("sentence-similarity", [0.5, -0.25], None, [0.5, -0.25]),
        ("text-ranking", [{"index": 1, "score": 0.75}, {"index": 0, "score": 0.5}], None, [0.75, 0.5]),
        ("multiple-choice", {"choice": "x", "index": 0, "scores": [0.75, 0.25]}, None, [0.75, 0.25]),
        ("decision", {"refund": {"type": "noul", "noul": 0.75}}, ["yes", "no"], [0.75, 0.25]),
    ],
)  # fmt: skip
def test_scores_are_drawn_as_bars(pretend, name, answer, labels, scores):
    inputs = table.find(name).example["inputs"]
    if labels is None:
        given = inputs.get("sentences") or inputs.get("texts") or inputs["choices"]
        order = [row["index"] for row in answer] if name == "text-ranking" else range(len(scores))
        labels = [given[i] for i in order]
    page = pretend(name, answer)
    page.run()
    assert page.texts("#answer .bars .label") == labels
    assert page.figures() == scores
    widths = [each.bounding_box()["width"] for each in page.page.locator("#answer .fill").all()]
    full = page.page.locator("#answer .track").first.bounding_box()["width"]
    assert [width / full for width in widths] == pytest.approx([abs(score) for score in scores], abs=0.01)


@pytest.mark.parametrize(
    ("name", "answer", "shown"),
    [
        ("depth-estimation", {"predicted_depth": [[0.5, 2.0]], "depth": _mask(0, 0, 9, 9)}, PNG),
        ("image-to-image", _mask(0, 0, 9, 9), PNG),
        ("text-to-audio", {"audio": examples.wav(), "sampling_rate": 16000}, "audio[src^='data:audio/wav']"),
        ("keypoint-matching",
         [{"keypoint_image_0": {"x": 1, "y": 2}, "keypoint_image_1": {"x": 3, "y": 4}, "score": 1}],
         "svg:has(image) line[x1='1'][y2='4']"),
        ("automatic-speech-recognition", {"text": "a b", "chunks": [{"text": "a", "timestamp": [0.0, 0.5]}]},
         "tr:has-text('0.50 s')"),
        ("summarization", [{"summary_text": "short"}], ".text:text-is('short')"),
        ("visual-question-answering", [{"answer": "two", "score": 0.5}], ".bars .label:text-is('two')"),
        ("mask-generation", {"masks": [_mask(0, 0, 9, 9)], "scores": [0.5]}, "canvas[height='32']"),
        ("text-classification", {"unheard": ["of"]}, "pre:has-text('unheard')"),
        ("object-detection", [], "p:has-text('Nothing was found')"),
    ],
)  # fmt: skip
def test_other_answers_are_drawn(pretend, name, answer, shown):
    page = pretend(name, answer)
    page.run()
    expect(page.page.locator(f"#answer {shown}")).to_be_visible()


# The code for a request


@pytest.fixture
def endpoint(demo):
    """SageMaker's door to an endpoint called my-endpoint, which is the demo."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self):
            assert self.path == "/endpoints/my-endpoint/invocations"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names = ("Content-Type", "Accept")
            reply = httpx.post(f"{demo.url}/invocations", content=body, headers={n: self.headers[n] for n in names})
            self.send_response(reply.status_code)
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _output(argv, folder, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(argv, cwd=folder, env={**clean, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_code_for_a_text_runs(visit, demo, endpoint, tmp_path):
    page = visit(demo)
    page.page.get_by_label("Input", exact=True).fill(AWKWARD)
    page.page.get_by_label("truncation").select_option("true")
    answer = page.answer()
    aws = {
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": endpoint, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }  # fmt: skip
    assert json.loads(_output(["bash", "-c", page.code("curl")], tmp_path)) == answer
    assert ast.literal_eval(_output([sys.executable, "-c", page.code("Python")], tmp_path)) == answer
    assert ast.literal_eval(_output([sys.executable, "-c", page.code("boto3")], tmp_path, **aws)) == answer


def test_the_code_can_be_copied(visit, demo):
    page = visit(demo, permissions=["clipboard-read", "clipboard-write"])
    page.page.get_by_role("button", name="Copy").click()
    expect(page.page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.page.evaluate("navigator.clipboard.readText()") == page.code("curl")


def test_the_code_reads_files_from_disk(visit, served, tmp_path):
    server = served("image-classification")
    page = visit(server)
    answer = page.answer()
    (tmp_path / "picture.png").write_bytes(base64.b64decode(_example(server)["inputs"]))
    (tmp_path / "sagemaker").mkdir()
    (tmp_path / "sagemaker" / "__init__.py").touch()
    (tmp_path / "sagemaker" / "huggingface.py").write_text(SDK.replace("URL", server.url))
    expect(page.page.locator("#snippets-note")).to_contain_text("picture.png")
    assert json.loads(_output(["bash", "-c", page.code("curl")], tmp_path)) == answer
    for language in ("Python", "SageMaker SDK"):
        code = page.code(language)
        assert len(code) < 2000
        assert ast.literal_eval(_output([sys.executable, "-c", code], tmp_path, PYTHONPATH=str(tmp_path))) == answer


def test_a_picture_of_ones_own_is_sent(visit, served, tmp_path):
    server = served("image-classification")
    own = tmp_path / "my cat.png"
    Image.effect_noise((48, 40), 60).convert("RGB").save(own)
    page = visit(server)
    page.page.get_by_label("Input").set_input_files(own)
    expect(page.page.locator(".drop")).to_contain_text("my cat.png")
    sent, reply = page.run()
    assert base64.b64decode(sent.post_data_json["inputs"]) == own.read_bytes()
    assert "'my cat.png'" in page.code("curl")
    _labels(page, None, reply.json())


# A chat, a stream, a model that is not there yet


def test_a_chat_is_written_and_drawn(visit, served):
    server = served("text-generation-llama")
    page = visit(server)
    page.page.get_by_role("radio", name="chat").check()
    page.page.get_by_role("textbox", name="Message", exact=True).fill("hi")
    page.page.get_by_label("max_new_tokens").fill("4")
    page.page.locator("#accept").select_option("application/json")
    sent, reply = page.run()
    assert sent.post_data_json["inputs"] == [{"role": "user", "content": "hi"}]
    assert page.texts("#answer .said .text") == [m["content"] for m in reply.json()[0]["generated_text"]]


def test_text_streams_unless_another_form_is_chosen(visit, served):
    server = served("text-generation-llama")
    page = visit(server)
    expect(page.page.locator("#accept")).to_have_value("text/event-stream")
    page.page.get_by_label("do_sample").select_option("false")
    page.page.get_by_label("max_new_tokens").fill("24")
    sent, reply = page.run()
    assert reply.headers["content-type"] == "text/event-stream"
    whole = server.post(json={**sent.post_data_json, "stream": False}).json()[0]["generated_text"]
    shown = page.page.locator("#answer .text").text_content()
    assert shown and sent.post_data_json["inputs"] + shown == whole
    assert "stream=True" in page.code("Python") or "text/event-stream" in page.code("curl")


def test_a_stream_is_shown_while_it_comes(visit, model_with):
    model = model_with(SPEAKS)
    with Server(model, engine="bare") as server:
        page = visit(server)
        page.page.get_by_role("button", name="Run").click()
        expect(page.page.locator("#answer .text")).to_have_text("one ")
        expect(page.page.locator("#answer")).to_have_attribute("aria-busy", "true")
        (model / "go").touch()
        expect(page.page.locator("#answer .text")).to_have_text("one two\n")
        expect(page.page.locator("#answer")).to_have_attribute("aria-busy", "false")


def test_a_request_can_be_stopped(visit, model_with):
    model = model_with(SPEAKS)
    with Server(model, engine="bare") as server:
        page = visit(server)
        page.page.get_by_role("button", name="Run").click()
        expect(page.page.locator("#answer .text")).to_have_text("one ")
        page.page.get_by_role("button", name="Stop").click()
        expect(page.page.locator("#answer")).to_contain_text("The request was stopped")
        (model / "go").touch()
        expect(page.page.get_by_role("button", name="Run")).to_be_visible()


def test_the_page_waits_for_the_model_and_then_asks_no_more(visit, model_with):
    model = model_with(LOADS_LATE)
    with Server(model, engine="bare", ready=False) as server:
        page = visit(server, wait=False)
        page.page.clock.install()
        page.page.goto(server.url)
        expect(page.page.locator("#reason")).to_contain_text("starting")
        (model / "go").touch()
        server.wait_until_ready()
        page.page.clock.run_for(1000)
        expect(page.page.locator("#request")).to_be_visible()
        before = list(page.asked)
        page.page.clock.run_for(60_000)
        page.page.get_by_label("Body").fill('{"inputs": "yes"}')
        page.run()
        assert page.asked == [*before, f"{server.url}/invocations"]
        assert page.texts("#answer .bars .label") == ["yes"]


# The docs


def test_the_docs_show_every_path_and_schema(visit, task):
    document = task.client.get("/openapi.json").json()
    page = visit(task, "/docs")
    names = document["components"]["schemas"]
    assert {name.removeprefix("schema-") for name in page.all(".schema", "id")} == set(names)
    assert page.texts(".card > h2 code") == list(document["paths"])
    for name, schema in names.items():
        fields = page.texts(f"[id='schema-{name}'] > .scroll > table > tbody > tr > td:first-child > .name")
        assert fields == list(schema.get("properties", {}))
        for about in schema.get("properties", {}).values():
            words = " ".join(about.get("description", "").split())
            assert words in " ".join(page.page.locator(f"[id='schema-{name}']").inner_text().split())
    links = {href.removeprefix("#") for href in page.all("#document a[href^='#']", "href")}
    assert links
    assert links <= set(page.all("#document [id]", "id"))
    for status in document["paths"]["/invocations"]["post"]["responses"]:
        expect(page.page.locator("#invoke .status", has_text=status)).to_have_count(1)


def test_the_docs_show_bounds_defaults_and_the_answered_example(visit, demo):
    page = visit(demo, "/docs")
    parameters = page.page.locator("#schema-Parameters")
    for words in ("≥\u00a0-1", '"softmax"', "Default: true", "Other fields are refused."):
        expect(parameters).to_contain_text(words)
    examples = [json.loads(text) for text in page.texts("#invoke .example pre")]
    assert examples == [_example(demo), demo.post(json=_example(demo)).json()]


def test_the_pages_lead_to_each_other(visit, demo):
    page = visit(demo)
    page.page.get_by_role("link", name="Docs").click()
    expect(page.page.locator("main[data-ready]")).to_be_attached()
    page.page.get_by_role("link", name="Playground").click()
    expect(page.page.locator("#request")).to_be_visible()


# Beyond the browser


def test_nginx_serves_the_pages_too(visit):
    with Server(engine="asgi") as server:
        page = visit(server)
        answer = page.answer()
        _labels(page, None, answer)
        visit(server, "/docs")


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"HFSERVE_PLAYGROUND": "off"}, False),
        ({"SAGEMAKER_REGION": "eu-west-1"}, False),
        ({"SAGEMAKER_REGION": "eu-west-1", "HFSERVE_PLAYGROUND": "on"}, True),
    ],
    ids=["off", "on-sagemaker", "on"],
)
def test_the_playground_can_be_off_and_is_on_sagemaker(model_with, environment, shown):
    with Server(model_with(SPEAKS), engine="bare", **environment) as server:
        reply = server.client.get("/")
        if shown:
            assert reply.status_code == 200
        else:
            assert_error(reply, 404, words=["HFSERVE_PLAYGROUND=on"])
        assert server.client.get("/docs").status_code == 200
        assert server.client.get("/openapi.json").status_code == 200


def test_the_docs_offer_no_playground_that_is_off(visit, model_with):
    with Server(model_with(SPEAKS), engine="bare", HFSERVE_PLAYGROUND="off") as server:
        page = visit(server, "/docs")
        page.page.wait_for_load_state("networkidle")
        expect(page.page.locator("#playground")).to_be_hidden()
