"""Pictures and sounds by form, as raw bytes and by URL go in, and come out as such, on every engine."""

import base64
import http.server
import io
import json
import threading
import wave

import pytest
from PIL import Image

import tiny
from hfserve.tasks.table import TASKS
from server import Server, assert_error

pytestmark = pytest.mark.once

PICTURE = base64.b64decode(TASKS["image-classification"].example["inputs"])


@pytest.fixture(scope="module")
def site():
    """A site on this machine that has one picture."""

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURE)))
            self.end_headers()
            self.wfile.write(PICTURE)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def pictures(engine, site, tmp_path_factory):
    """A tiny model of image-classification on each engine, that may fetch from the site."""
    model = tiny.build("image-classification", tmp_path_factory.mktemp("model"))
    settings = {"HF_TASK": "image-classification", "HFSERVE_ALLOW_URLS": site, "HFSERVE_MAX_PIXELS": "2000"}
    with Server(model, engine=engine, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def answers(pictures):
    """The usual answer, and the one label that is asked for below."""
    usual = pictures.post(json={"inputs": base64.b64encode(PICTURE).decode()})
    assert usual.status_code == 200, usual.text
    assert len(usual.json()) > 1
    return usual.json()


def test_a_form_is_a_file_with_parameters(pictures, answers):
    files = {"file": ("cat.png", PICTURE, "image/png")}
    assert pictures.client.post("/invocations", files=files).json() == answers
    one = pictures.client.post("/invocations", files=files, data={"top_k": "1"})
    assert one.json() == answers[:1]
    one = pictures.client.post("/invocations", files={"inputs": PICTURE}, data={"parameters": '{"top_k": 1}'})
    assert one.json() == answers[:1]


def test_raw_bytes_have_parameters_in_the_query_or_a_header(pictures, answers):
    def post(query="", **headers):
        headers = {"Content-Type": "image/png", **headers}
        return pictures.client.post(f"/invocations{query}", content=PICTURE, headers=headers)

    assert post().json() == answers
    assert post("?top_k=1").json() == answers[:1]
    assert post(**{"X-HF-Parameters": '{"top_k": 1}'}).json() == answers[:1]
    logits = post("?top_k=1&function_to_apply=none", **{"X-HF-Parameters": '{"top_k": 2}'}).json()
    assert len(logits) == 1 and logits != answers[:1]
    assert_error(post(**{"X-HF-Parameters": "top_k=1"}), 400, kind="BadRequest", words=["X-HF-Parameters"])
    assert_error(post("?tok_k=1"), 422, kind="InvalidInput", words=["parameters.tok_k"])


def test_a_broken_form_is_400(pictures):
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    reply = pictures.client.post("/invocations", content=b"--b\r\n", headers=headers)
    assert_error(reply, 400, kind="BadRequest", words=["form is broken"])


def test_a_picture_is_fetched_from_a_host_that_is_allowed(pictures, answers, site):
    assert pictures.post(json={"inputs": f"http://{site}/cat.png"}).json() == answers
    refused = pictures.post(json={"inputs": "http://169.254.169.254/latest/meta-data"})
    assert_error(refused, 422, kind="InvalidInput", words=["inputs", "HFSERVE_ALLOW_URLS"])


def test_too_many_pixels_are_413(pictures):
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, "PNG")
    raw = pictures.post(file.getvalue(), content_type="image/png")
    assert_error(raw, 413, kind="PayloadTooLarge", words=["HFSERVE_MAX_PIXELS"])
    encoded = pictures.post(json={"inputs": base64.b64encode(file.getvalue()).decode()})
    assert_error(encoded, 413, kind="PayloadTooLarge", words=["inputs", "HFSERVE_MAX_PIXELS"])


def served(name, tmp_path_factory):
    model = tiny.build(name, tmp_path_factory.mktemp(name))
    return Server(model, engine="bare", HF_TASK=tiny.task_of(name))


@pytest.fixture(scope="module")
def depth(tmp_path_factory):
    with served("depth-estimation", tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    with served("text-to-audio", tmp_path_factory) as server:
        yield server


@pytest.mark.parametrize(
    ("accept", "kind"), [("image/*", "PNG"), ("image/jpeg", "JPEG"), ("text/html, image/png", "PNG")]
)
def test_a_depth_map_is_a_picture_where_one_is_wanted(depth, accept, kind):
    reply = depth.post(PICTURE, content_type="image/png", accept=accept)
    assert reply.headers["content-type"] == f"image/{kind.lower()}"
    assert Image.open(io.BytesIO(reply.content)).format == kind
    encoded = depth.post(PICTURE, content_type="image/png").json()["depth"]
    assert Image.open(io.BytesIO(base64.b64decode(encoded))).size == Image.open(io.BytesIO(reply.content)).size


def test_a_form_of_answer_that_a_picture_has_not_is_406(depth):
    reply = depth.post(PICTURE, content_type="image/png", accept="audio/wav")
    assert_error(reply, 406, kind="NotAcceptable", words=["image/png", "application/json"])


def test_a_voice_is_wav_where_that_is_wanted(voice):
    reply = voice.post("good food", content_type="text/plain", accept="audio/*")
    assert reply.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(reply.content)) as file:
        assert file.getframerate() == 16_000 and file.getnframes() > 100
    answer = voice.post(json.dumps({"inputs": "good food"})).json()
    assert answer["sampling_rate"] == 16_000 and base64.b64decode(answer["audio"])[:4] == b"RIFF"
