"""int8 through a real server: in a process of its own, as NNCF and what it makes are in no other."""

import os
import signal

import pytest

import tiny
from server import Server

SENTENCES = ["I love it", "It is bad", "Never again\tnot true", "", "the people were kind and the food was good"]
TEXTS = [text for text in SENTENCES if text and "\t" not in text]


@pytest.fixture
def model(tmp_path):
    directory = tiny.build("text-classification-bert", tmp_path / "model")
    (directory / "sentences.txt").write_text("\n".join(SENTENCES * 8))
    return directory


def ask(server):
    answer = server.post(json={"inputs": TEXTS, "parameters": {"top_k": None}})
    assert answer.status_code == 200
    return [{each["label"]: each["score"] for each in row} for row in answer.json()]


def test_int8_is_calibrated_says_how_far_it_is_off_and_is_remembered(model):
    with Server(model) as server:
        exact = ask(server)
    options = {"HFSERVE_RUNTIME": "openvino", "HFSERVE_DTYPE": "int8", "HFSERVE_CALIBRATION": "sentences.txt"}
    with Server(model, **options) as server:
        told = next(each for each in list(server.lines) if "in int8, answers differ" in each["event"])
        assert told["compared"] == 32 and 0.99 < told["least_cosine"] <= told["mean_cosine"] <= 1
        off = [abs(one[name] - other[name]) for one, other in zip(ask(server), exact, strict=True) for name in one]
        assert 0 < max(off) < 0.1
        before = ask(server)
        [worker] = server.pids("hfserve.doors.worker")
        os.kill(worker, signal.SIGKILL)
        server.wait(lambda: server.pids("hfserve.doors.worker") not in ([], [worker]), "another worker")
        server.wait_until_ready()
        assert ask(server) == before
        tuned = [each["known"] for each in list(server.lines) if each["event"] == "tuned"]
        calibrated = [each for each in list(server.lines) if "calibrating" in each["event"]]
        assert tuned == [False, True] and len(calibrated) == 1
