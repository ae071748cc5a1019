"""The payloads of local_test are answered, each by its task as its schema says, and sent by predict.sh."""

import json
import os
import subprocess
import time
from pathlib import Path

import jsonschema
import pytest

import zoo
from deploy.payloads import FOLDER, made
from hfserve.artifacts import DEMO, Artifact
from hfserve.messages import Request
from hfserve.model import load
from hfserve.settings import Settings
from hfserve.tasks.table import TASKS
from server import HFSERVE, Server

FILES = {
    "picture.png": ("image-classification", "image/png"),
    "sound.wav": ("audio-classification", "audio/wav"),
    "film.y4m": ("video-classification", "application/octet-stream"),
    "reviews.jsonl": ("text-classification", "application/jsonlines"),
    "reviews.csv": ("text-classification", "text/csv"),
    "review.txt": ("text-classification", "text/plain"),
}
"""Files as they are, the task that answers them, and what they are called."""


def test_there_is_a_payload_for_every_task_as_the_tasks_have_it():
    there = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    assert there == made(), "python tests/deploy/payloads.py writes them"


@pytest.mark.parametrize("task", TASKS)
def test_a_task_answers_its_payloads_as_declared(task, tmp_path):
    zoo.build(task, tmp_path)
    model = load(Artifact(tmp_path, str(tmp_path), code_dir=None), Settings(task=task, max_new_tokens=8))
    document = model.openapi()
    answered = document["paths"]["/invocations"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    schema = {**answered, "components": document["components"]}
    own = [(f"{task}.json", "application/json")] + [(name, type_) for name, (of, type_) in FILES.items() if of == task]
    for name, content_type in own:
        headers = {"content-type": content_type, "accept": "application/json"}
        job = model.prepare(Request((FOLDER / name).read_bytes(), headers, "id", time.monotonic() + 60))
        answer = json.loads(job.finish(model.run(job.items, 1)).body)
        answers = answer if name == "reviews.jsonl" else [answer]
        for each in answers:
            jsonschema.validate(each, schema, jsonschema.Draft202012Validator)


SCRIPTS = FOLDER.parent


def predict(url, payload, *more):
    environment = {**os.environ, "URL": url}
    argv = ["sh", SCRIPTS / "predict.sh", FOLDER / payload, *more]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)


def test_predict_sends_a_file_and_prints_the_answer():
    with Server() as server:
        for payload in ("text-classification.json", "reviews.jsonl", "reviews.csv", "review.txt"):
            done = predict(server.url, payload)
            assert done.returncode == 0, done.stderr
            assert "label" in done.stdout
        refused = predict(server.url, "picture.png")
        assert refused.returncode == 22 and '"status": 4' in refused.stdout
        assert predict(server.url, "review.txt", "application/json").returncode == 22


def test_serve_local_serves_the_model_of_a_directory(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "IMAGE"}
    environment |= {"PORT": "0", "HFSERVE_LOG": "json", "HFSERVE_ENGINE": "asgi", "HFSERVE_NGINX": "0"}
    environment["PATH"] = f"{Path(HFSERVE).parent}:{environment['PATH']}"
    with subprocess.Popen(
        ["sh", SCRIPTS / "serve_local.sh", DEMO], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        events = (json.loads(line) for line in process.stdout)
        url = next(event["url"] for event in events if "url" in event)
        done = predict(url.removesuffix("/invocations"), "review.txt")
        process.terminate()
        process.stdout.read()
        assert "label" in done.stdout, done.stderr
    assert process.returncode == 0


def test_an_image_is_run_as_sagemaker_runs_it(tmp_path):
    engine = tmp_path / "docker"
    engine.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    engine.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "IMAGE": "hfserve:1", "PORT": "9000"}
    done = subprocess.run(["sh", SCRIPTS / "serve_local.sh", DEMO], env=environment, capture_output=True, text=True)
    words = done.stdout.split()
    assert words[-2:] == ["hfserve:1", "serve"]
    assert words[words.index("-p") + 1] == "127.0.0.1:9000:8080"
    assert words[words.index("-v") + 1] == f"{DEMO}:/opt/ml/model:ro"
