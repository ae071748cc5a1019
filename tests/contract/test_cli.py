"""The command line keeps its word: what each command prints, where, and with which exit status."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from hfserve import artifacts, settings
from hfserve.runtimes.device import gpus
from server import CLEAN, HFSERVE, Server, thoroughly

SERVE = str(Path(HFSERVE).with_name("serve"))
SECRET = "hf_secret_of_the_test"

ECHO = """
import logging
def model_fn(model_dir): return None
def input_fn(body, content_type): return {"type": content_type, "size": len(body)}
def predict_fn(data, model, context):
    if data["size"] == 13:
        raise ValueError("no luck")
    return {**data, "accept": context.get_request_header(0, "Accept")}
"""


def environment(**more):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
    return {**clean, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **more}


def run(*argv, command=HFSERVE, **more):
    """One command, run to its end."""
    argv = [command, *map(str, argv)]
    return subprocess.run(argv, env=environment(**more), capture_output=True, text=True, timeout=60)


class Started:
    """`serve` with its output as it is, on a pipe or on a terminal; it is stopped when left."""

    def __init__(self, *argv, terminal=False, **more):
        self.text = ""
        self._argv = [str(each) for each in argv]
        self._terminal = terminal
        self._environment = environment(**more)

    def __enter__(self):
        self._end, theirs = pty.openpty() if self._terminal else os.pipe()
        self.process = subprocess.Popen(
            self._argv, env=self._environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *exc):
        self.stop(signal.SIGTERM)
        os.close(self._end)

    def _read(self):
        with contextlib.suppress(OSError):  # a terminal that nobody holds any more
            while piece := os.read(self._end, 65536):
                self.text += piece.decode().replace("\r\n", "\n")

    @property
    def lines(self):
        return self.text.splitlines()

    def wait(self, condition, what):
        end = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < end and self.process.poll() is None, f"no {what}; it said:\n{self.text}"
            time.sleep(0.02)
        return found

    def stop(self, number):
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            return self.process.wait(40)
        finally:
            self.process.kill()
            self._reader.join(5)


def ping(url):
    try:
        return httpx.get(f"{url}/ping", trust_env=False).status_code
    except httpx.HTTPError:
        return 0


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# hfserve


@pytest.mark.parametrize(
    "argv",
    [
        (), ("sing",), ("serve", "--nope"), ("serve", "a", "b"), ("serve", "--engine", "tomcat"),
        ("serve", "--port", "http"), ("check",), ("check", "a", "b"), ("settings", "model"), ("invoke", "{}", "more"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_arguments_that_are_not_wanted_are_exit_2_with_the_usage(argv):
    done = run(*argv)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: hfserve")
    assert done.stdout == ""


def test_help_and_version_are_told():
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version").stdout)
    for command in ("serve", "check", "invoke", "settings"):
        assert command in run("--help").stdout
        assert run(command, "--help").returncode == 0


# hfserve settings


def test_settings_tell_each_value_and_where_it_came_from():
    done = run("settings", "--port", "9000", HFSERVE_LANES="3", SAGEMAKER_MODEL_SERVER_WORKERS="2", HF_TOKEN=SECRET)
    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert set(rows) == set(settings.Settings.model_fields)
    assert rows["port"] == ["9000", "--port"]
    assert rows["lanes"] == ["3", "HFSERVE_LANES"]
    assert rows["workers"] == ["2", "SAGEMAKER_MODEL_SERVER_WORKERS"]
    assert rows["max_batch"] == ["-", "default"]
    assert rows["token"][-1] == "HF_TOKEN" and "*" in rows["token"][0]
    assert SECRET not in done.stdout + done.stderr


def test_settings_come_as_json():
    done = run("settings", "--json", "--engine", "asgi", HF_API_TOKEN=SECRET, MMS_NETTY_CLIENT_THREADS="4")
    found = json.loads(done.stdout)
    assert set(found) == set(settings.Settings.model_fields)
    assert found["engine"] == {"value": "asgi", "source": "--engine"}
    assert found["mms"]["source"] == "MMS_*" and "netty_client_threads" in found["mms"]["value"]
    assert found["token"]["source"] == "HF_API_TOKEN"
    assert found["workers"] == {"value": "", "source": "default"}
    assert SECRET not in done.stdout + done.stderr


def test_settings_print_the_page_of_the_documentation():
    assert run("settings", "--markdown", HFSERVE_LANES="3").stdout == settings.markdown()


@pytest.mark.parametrize("command", ["settings", "serve"])
def test_a_setting_that_makes_no_sense_is_exit_3_and_a_sentence(command):
    done = run(command, HFSERVE_MAX_BATCH="many", PORT="70000", HF_TOKEN=SECRET)
    assert done.returncode == 3
    assert "HFSERVE_MAX_BATCH='many'" in done.stderr and "PORT='70000'" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and SECRET not in done.stderr


# hfserve check


def test_check_tells_what_the_demo_model_is():
    done = run("check", artifacts.DEMO)
    assert done.returncode == 0, done.stdout
    found = dict(line.split("  ", 1) for line in done.stdout.splitlines() if "  " in line)
    found = {name: value.strip() for name, value in found.items()}
    config = json.loads((artifacts.DEMO / "config.json").read_text())
    assert found["task"] == "text-classification"
    assert found["architecture"] == config["architectures"][0]
    assert found["hooks"].startswith("none")
    assert found["requirements"] == "none"
    megabytes = sum(file.stat().st_size for file in artifacts.DEMO.iterdir()) / (1 << 20)
    assert found["size on disk"] == f"{megabytes:.1f} MB"
    assert re.fullmatch(r"about \d+\.\d MB", found["memory per worker"])
    assert done.stdout.splitlines()[-1] == "ready to serve"


def test_check_tells_the_hooks_and_the_requirements(model_with):
    files = {"requirements.txt": "# ours\nnumpy>=2  # numbers\n\npillow\n"}
    done = run("check", model_with(ECHO, **files))
    assert done.returncode == 0, done.stdout
    assert "model_fn, input_fn, predict_fn in code/inference.py" in done.stdout
    assert "numpy>=2, pillow" in done.stdout
    assert "custom, by the hooks" in done.stdout


def test_check_names_every_mistake_at_once(model_with):
    source = """
def model_fn(a, b, c): pass
def predict_fn(): pass
def transform_fn(model, body, content_type, accept): pass
def output_fm(prediction, accept): pass
input_fn = 3
"""
    model = model_with(source)
    (model / "config.json").write_text('{"architectures": ["BertForSomething"]}')
    done = run("check", model)
    assert done.returncode == 3
    for words in (
        "code/inference.py:2: model_fn(a, b, c)", "code/inference.py:3: predict_fn()", "code/inference.py:4",
        "input_fn should be a function", "BertForSomething",
    ):  # fmt: skip
        assert words in done.stdout
    mistakes = [line for line in done.stdout.splitlines() if line.startswith("mistake")]
    assert len(mistakes) >= 5 and len(set(mistakes)) == len(mistakes)
    assert done.stdout.splitlines()[-1] == f"{len(mistakes)} mistakes: this would not start"
    assert "Traceback" not in done.stdout + done.stderr


def test_check_tells_one_mistake_once(model_with):
    model = model_with(ECHO.replace("def model_fn(model_dir)", "def load(model_dir)"))
    (model / "config.json").write_text("{")
    done = run("check", model)
    assert done.returncode == 3
    [mistake] = [line for line in done.stdout.splitlines() if line.startswith("mistake")]
    assert "config.json" in mistake


@pytest.mark.parametrize("given", ["nothing", "empty", "file.txt"])
def test_check_of_what_is_no_model_is_exit_3_and_a_sentence(tmp_path, given):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    done = run("check", tmp_path / given)
    assert done.returncode == 3
    assert "1 mistake: this would not start" in done.stdout
    assert done.stderr == ""


def test_check_says_that_there_is_no_such_task():
    done = run("check", artifacts.DEMO, "--task", "text-clasification")
    assert done.returncode == 3
    assert "there is no such task" in done.stdout


def _cut(weights):
    weights.write_bytes(weights.read_bytes()[:-5000])


def _rename_to_a_pickle(weights):
    weights.rename(weights.with_name("pytorch_model.bin"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [(_rename_to_a_pickle, "HFSERVE_ALLOW_PICKLE=1"), (Path.unlink, "safetensors"), (_cut, "model.safetensors")],
)
def test_check_does_not_call_ready_what_serving_refuses(tmp_path, damage, words):
    model = shutil.copytree(artifacts.DEMO, tmp_path / "model")
    damage(model / "model.safetensors")
    done = run("check", model)
    assert done.returncode == 3, done.stdout
    assert words in done.stdout


def test_check_asks_for_no_task_when_hooks_load_the_model_and_one_of_them_is_wrong(model_with):
    done = run("check", model_with("def model_fn(model_dir): return None\ndef predict_fn(): pass\n"))
    [mistake] = [line for line in done.stdout.splitlines() if line.startswith("mistake")]
    assert "code/inference.py:2: predict_fn()" in mistake


def test_check_does_not_ask_for_a_requirement_that_is_there(model_with):
    source = "import not_there_yet\ndef model_fn(model_dir): return None\ndef predict_fn(data, model): return data\n"
    model = model_with(source, **{"requirements.txt": "not-there-yet>=1\n"})
    done = run("check", model, HFSERVE_NETWORK_ISOLATION="1")
    assert "name not_there_yet in code/requirements.txt" not in done.stdout
    assert "config.json" not in done.stdout


# hfserve invoke


@pytest.fixture(scope="module")
def feelings():
    with Server(engine="asgi") as server:
        yield server


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    """A server that tells what was sent to it."""
    code = tmp_path_factory.mktemp("echo") / "code"
    code.mkdir()
    (code / "inference.py").write_text(ECHO)
    with Server(code.parent, engine="asgi") as server:
        yield server


@pytest.mark.parametrize("ending", ["", "/", "/invocations"])
def test_invoke_prints_the_answer_as_indented_json(feelings, ending):
    done = run("invoke", '{"inputs": "I love this"}', "--url", feelings.url + ending)
    assert done.returncode == 0
    [answer] = json.loads(done.stdout)
    assert answer["label"] == "POSITIVE"
    assert done.stdout == json.dumps([answer], indent=2) + "\n"
    assert done.stderr.startswith("200 OK")


def test_invoke_tells_a_refusal_by_its_exit_status(feelings):
    done = run("invoke", '{"inputs": 3}', "--url", feelings.url)
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"]["status"] == 422
    assert done.stderr.startswith("422 ")


def test_invoke_tells_a_failure_by_its_exit_status(echo):
    done = run("invoke", "x" * 13, "--url", echo.url)
    assert done.returncode == 5
    assert "no luck" in json.loads(done.stdout)["error"]["message"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "http://[no", "ftp://127.0.0.1"])
def test_invoke_says_when_nobody_answers(port, url):
    done = run("invoke", "{}", "--url", url.format(port=port))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "hfserve serve" in done.stderr, done.stderr
    assert done.stdout == ""


def test_invoke_sends_a_file_by_the_type_that_its_name_says(echo, tmp_path):
    types = {
        "cat.png": "image/png", "cat.jpg": "image/jpeg", "rows.csv": "text/csv", "rows.jsonl": "application/jsonlines",
        "array.npy": "application/x-npy", "a.json": "application/json", "note.txt": "text/plain",
        "thing.unheard": "application/octet-stream",
    }  # fmt: skip
    for name, kind in types.items():
        (tmp_path / name).write_bytes(b"abc")
        done = run("invoke", "--file", tmp_path / name, "--url", echo.url)
        assert json.loads(done.stdout) == {"type": kind, "size": 3, "accept": "application/json"}
    done = run("invoke", "--file", tmp_path / "cat.png", "--content-type", "image/x-cat", "--url", echo.url)
    assert json.loads(done.stdout)["type"] == "image/x-cat"


def test_invoke_asks_for_another_form_and_prints_it_as_it_comes(feelings, tmp_path):
    (tmp_path / "texts.csv").write_text("inputs\nI love this\nThis is terrible\n")
    done = run("invoke", "--file", tmp_path / "texts.csv", "--accept", "text/csv", "--url", feelings.url)
    assert done.returncode == 0
    head, *rows = done.stdout.strip().splitlines()
    assert head == "label,score"
    assert [row.partition(",")[0] for row in rows] == ["POSITIVE", "NEGATIVE"]


def test_invoke_wants_a_body_or_a_file(tmp_path):
    for argv in ((), ("{}", "--file", tmp_path), ("--file", tmp_path / "nothing")):
        done = run("invoke", *argv)
        assert done.returncode == 2
        assert done.stderr.startswith("hfserve: ") and done.stdout == ""


# hfserve serve


def test_on_a_terminal_people_read_text_and_a_line_to_try():
    with Started(HFSERVE, "serve", "--port", "0", "--engine", "asgi", terminal=True) as served:
        served.wait(lambda: "curl" in served.text and served.text.endswith("\n\n"), "line to try")
        assert not any(line.startswith("{") for line in served.lines)
        url = re.search(r"ready  url=(http://127\.0\.0\.1:\d+/invocations)", served.text)[1]
        [command] = [line.strip() for line in served.lines if line.strip().startswith("curl ")]
        assert [line for line in served.lines if line][-1].strip() == command
        assert command.endswith(url)
        body, kind = re.search(r"-d '(.+)' -H 'Content-Type: (.+)'", command).groups()
        reply = httpx.post(url, content=body, headers={"Content-Type": kind}, trust_env=False)
        assert reply.json()[0]["label"] == "POSITIVE"
        assert served.stop(signal.SIGINT) == 0
    assert "Traceback" not in served.text
    assert "stopped" in served.lines[-1]


@pytest.mark.parametrize(("terminal", "form"), [(True, "json"), (False, "text"), (False, "auto"), (True, "auto")])
def test_the_form_of_the_log_can_be_chosen(tmp_path, terminal, form):
    more = {"HFSERVE_LOG": form}
    with Started(HFSERVE, "serve", tmp_path / "no", "--port", "0", terminal=terminal, **more) as served:
        assert served.process.wait(60) == 3
    text = form == "text" or (form == "auto" and terminal)
    assert len(served.lines) >= 2
    assert {line.startswith("{") for line in served.lines} == {not text}
    assert "there is no such directory" in served.lines[-1]
    assert not text or "ERROR: " in served.lines[-1]


def test_the_serve_command_works_like_hfserve_serve(model_with, port):
    """[1]"""
    model = model_with(ECHO)
    started = Started(SERVE, SAGEMAKER_BASE_DIR=str(model.parent), SAGEMAKER_BIND_TO_PORT=str(port), PORT="1")
    with started as served:
        url = f"http://127.0.0.1:{port}"
        served.wait(lambda: ping(url) == 200, "good /ping")
        assert httpx.post(f"{url}/invocations", json={}, trust_env=False).json()["size"] == 2
        assert served.stop(signal.SIGTERM) == 0
    assert run("--nope", command=SERVE).returncode == 2


@pytest.mark.parametrize("device", ["cuda:99"] if gpus() else ["cuda:99", "cuda"])
def test_a_device_that_is_not_there_is_exit_3_and_named(device):
    done = run("serve", "--port", "0", "--engine", "asgi", HFSERVE_DEVICE=device)
    assert done.returncode == 3
    last = json.loads(done.stdout.splitlines()[-1])
    assert "HFSERVE_DEVICE" in last["event"] and device in last["event"]


NOISY = """
import logging, sys, warnings
print("imported")
def model_fn(model_dir):
    print("two\\nlines", file=sys.stderr)
    warnings.warn("careful")
    return None
def predict_fn(data, model):
    print({"a": 1})
    print('{"half": ', flush=True)
    print('{"event": "structured", "colour": "blue"}')
    logging.getLogger("mine").info("predicting", extra={"colour": "red"})
    if data.get("fail"):
        raise ValueError("no\\nluck")
    return data
"""


@pytest.mark.parametrize("engine", ["asgi", "mms"])
def test_every_line_of_the_log_is_one_json_event(engine, model_with):
    """[42]"""
    with Server(model_with(NOISY), engine=engine) as server:
        for i in range(3):
            assert server.post(json={}, headers={"X-Request-Id": f"good-{i}"}).status_code == 200
        assert server.post(json={"fail": True}, headers={"X-Request-Id": "bad-1"}).status_code == 500
        assert server.post("{", content_type="application/json").status_code == 400
        for path in ("/ping", "/ping", "/metrics", "/nope"):
            server.client.get(path)
    for line in server.lines:
        assert {"time", "level", "source", "event"} <= set(line), line
        assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0
        assert line["level"] in {"debug", "info", "warning", "error", "critical"}
    said = [line["event"] for line in server.lines]
    assert {"imported", "two", "lines", '{"half":', "stopped"} <= set(said)
    assert sum("careful" in each for each in said) == 1
    assert not any("/ping" in json.dumps(line) for line in server.lines)
    structured = [line for line in server.lines if line["event"] == "structured"]
    assert {(line["source"], line["colour"]) for line in structured} == {("worker-0", "blue")}
    by_request = [line for line in server.lines if line["event"] == "predicting"]
    assert [line["request_id"] for line in by_request] == ["good-0", "good-1", "good-2", "bad-1"]
    assert {line["colour"] for line in by_request} == {"red"}
    failures = [line for line in server.lines if line.get("request_id") == "bad-1" and line["level"] == "error"]
    assert any("ValueError: no\nluck" in line.get("traceback", "") for line in failures)


@pytest.mark.parametrize("level", ["40", thoroughly("error")])
def test_a_higher_level_leaves_only_what_is_worse(model_with, port, level):
    model = model_with(NOISY)
    with Started(HFSERVE, "serve", model, "--port", port, SAGEMAKER_CONTAINER_LOG_LEVEL=level) as served:
        url = f"http://127.0.0.1:{port}"
        served.wait(lambda: ping(url) == 200, "good /ping")
        assert httpx.post(f"{url}/invocations", json={}, trust_env=False).status_code == 200
        assert httpx.post(f"{url}/invocations", json={"fail": True}, trust_env=False).status_code == 500
        assert served.stop(signal.SIGTERM) == 0
    levels = [json.loads(line)["level"] for line in served.lines]
    assert set(levels) == {"error"}, served.text


@pytest.mark.parametrize("engine", ["mms"])
def test_two_servers_on_one_machine_do_not_disturb_each_other(engine, model_with):
    with Server(engine=engine) as staying:
        pids = sorted(staying.pids(""))
        with Server(model_with(ECHO), engine=engine) as going:
            assert going.url != staying.url
            for _ in range(20):
                assert going.post(b"abc", content_type="text/plain").json()["size"] == 3
                assert staying.post(json={"inputs": "I love this"}).json()[0]["label"] == "POSITIVE"
        assert going.process.returncode == 0
        assert staying.ping() == 200
        assert staying.post(json={"inputs": "I love this"}).json()[0]["label"] == "POSITIVE"
        assert sorted(staying.pids("")) == pids
