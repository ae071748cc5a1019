"""What the image promises, asked of the running image; `make image-test` builds it and runs these."""

import json
import time
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.sync.client import connect

from image.container import ENGINE, STRICT, Container, command, described, engine

ROOT = Path(__file__).parent.parent.parent

SLOW_STREAM = """
import time

def model_fn(model_dir):
    return None

def predict_fn(data, model):
    for number in range(data["pieces"]):
        time.sleep(0.1)
        yield {"piece": number}
"""


def test_it_answers_as_sagemaker_runs_it(demo_model, figures):
    """[1, 35] A read-only model and file system, limits, no capabilities, no network but its port."""
    with Container(demo_model, SAGEMAKER_REGION="eu-west-1", SAGEMAKER_PROGRAM="") as container:
        ready = container.wait_until_ready()
        begun = time.monotonic()
        reply = container.post({"inputs": "I love this"})
        first = time.monotonic() - begun
        assert (reply.status_code, reply.json()[0]["label"]) == (200, "POSITIVE")
        assert container.post({"inputs": 5}).status_code in (400, 422)
        assert container.client.get("/execution-parameters").json()["MaxPayloadInMB"] == 25
        assert b"hfserve_memory_bytes" in container.client.get("/metrics").content
        starting = next(event for event in container.events() if event["event"] == "starting")
        assert (starting["engine"], starting["nginx"]) == ("mms", True)
        held = container.memory()
        status, stopped = container.stop()
    assert status == 0
    figures(f"one worker: `run` to ready {ready:.1f} s, first answer {1000 * first:.0f} ms later, {held} MiB, ")
    figures(f"  stop when idle {stopped:.1f} s")


def test_a_second_worker_costs_a_copy_of_the_model(figures):
    with Container(SAGEMAKER_MODEL_SERVER_WORKERS="2") as container:
        ready = container.wait_until_ready()
        assert container.post({"inputs": "I love this"}).status_code == 200
        both = sum(event["event"] == "ready" and event["source"].startswith("worker") for event in container.events())
        assert both >= 1
        figures(f"two workers: `run` to ready {ready:.1f} s, {container.memory()} MiB")


def test_the_quota_of_processors_decides_how_many_lanes_there_are():
    """[44]"""
    with Container(options=(*STRICT, "--cpus", "1")) as container:
        container.wait_until_ready()
        ready = next(event for event in container.events() if event["event"] == "ready" and "lanes" in event)
    assert ready["lanes"] == 1


def test_what_streams_when_it_is_stopped_is_sent_to_its_end(hooks, figures):
    """[3]"""
    with Container(hooks(SLOW_STREAM)) as container:
        container.wait_until_ready()
        body = {"pieces": 40, "stream": True}
        with ThreadPoolExecutor(1) as pool, container.client.stream("POST", "/invocations", json=body) as reply:
            lines = reply.iter_lines()
            first = next(lines)
            stopping = pool.submit(container.stop)
            rest = list(lines)
        status, seconds = stopping.result()
        assert [json.loads(line)["piece"] for line in [first, *rest]] == list(range(40))
        assert (status, seconds < 30) == (0, True)
        assert [e["event"] for e in container.events()][-1] == "stopped"
        figures(f"stop in the middle of a stream of 4 s: exit 0 after {seconds:.1f} s, all 40 pieces arrived")


@pytest.mark.parametrize("user", ["0:0", "1000", "54321:54321"])
def test_any_user_may_run_it(user):
    """[5] Root without its capabilities, the image's own user, and one that has no name there."""
    with Container(user=user) as container:
        container.wait_until_ready()
        assert container.post({"inputs": "I love this"}).status_code == 200
        assert container.exec("id", "-u").stdout.strip() == user.partition(":")[0]
        assert container.stop()[0] == 0


def test_nothing_is_written_but_under_tmp():
    """[36]"""
    with Container(options=("--memory", "3g")) as container:
        container.wait_until_ready()
        assert container.post({"inputs": "I love this"}).status_code == 200
        container.stop()
        changed = {line.split()[1] for line in engine("diff", container.id).splitlines()}
    mounted = ("/tmp", "/dev", "/proc", "/sys", "/run", "/etc")
    assert not {path for path in changed if path != "/" and not path.startswith(mounted)}


def test_requirements_beside_the_hooks_are_installed(hooks):
    """[41] By pip under /tmp, from bundled wheels when there is no way out."""
    source = (
        "import handmade\ndef model_fn(model_dir): return None\ndef predict_fn(data, model): return handmade.word\n"
    )
    model = hooks(source, **{"requirements.txt": "handmade>=1\n"})
    a_wheel(model / "code" / "wheels")
    with Container(model, HFSERVE_NETWORK_ISOLATION="1", user="54321:54321") as container:
        container.wait_until_ready()
        assert container.post({}).json() == "made by hand"


def test_frames_come_back_by_websocket():
    """[27]"""
    with Container() as container:
        container.wait_until_ready()
        address = container.url.replace("http", "ws") + "/invocations-bidirectional-stream"
        with connect(address, proxy=None) as socket:
            socket.send(json.dumps({"inputs": "I love this"}))
            assert json.loads(socket.recv())[0]["label"] == "POSITIVE"


def test_the_port_may_be_chosen_and_the_health_check_follows():
    """[7] Serving on a port that is not published here, it is asked from inside."""
    with Container(SAGEMAKER_BIND_TO_PORT="9090") as container:
        check = ("python", "-I", "/opt/hfserve/healthcheck.py")
        end = time.monotonic() + 150
        assert container.exec(*check).returncode == 1
        while (asked := container.exec(*check)).returncode and time.monotonic() < end:
            pass
        assert (asked.returncode, asked.stdout.split()[0]) == (0, "200"), container.log()


def test_orphans_are_reaped_by_pid_1():
    """[2]"""
    with Container() as container:
        container.wait_until_ready()
        assert container.exec("cat", "/proc/1/cmdline").stdout.split("\0")[-2:] == ["serve", ""]
        orphan = container.exec("sh", "-c", "sleep 0.1 >/dev/null 2>&1 & echo $!").stdout.strip()
        end = time.monotonic() + 30
        while container.exec("test", "-e", f"/proc/{orphan}").returncode == 0:
            assert time.monotonic() < end, container.exec("cat", f"/proc/{orphan}/status").stdout


def test_a_stop_is_heard_from_the_first_moment_on():
    """PID 1 gets only signals that it has a handler for: without one this would take the whole patience."""
    with Container() as container:
        container.client.close()
        status, seconds = container.stop(20)
    assert (status, seconds < 15) == (0, True)


def test_a_start_that_fails_says_so_by_its_exit_status(hooks):
    with Container(hooks("def model_fn(): return None\n")) as container:
        end = time.monotonic() + 100
        while container.running:
            assert time.monotonic() < end
        assert container.stop()[0] == 3
        assert "model_fn" in container.events()[-1]["event"]


def test_any_other_command_is_run_instead():
    """[1]"""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert command("hfserve", "--version").stdout.strip() == version
    assert described('{{index .Config.Labels "org.opencontainers.image.version"}}') == version
    assert command("sh", "-c", "exit 7").returncode == 7
    nothing = command("no-such-program")
    assert (nothing.returncode, "no-such-program" in nothing.stderr) == (127, True)


def test_the_image_says_what_sagemaker_asks_for():
    """[4, 7, 8]"""
    labels = json.loads(described("{{json .Config.Labels}}"))
    asked = ("accept-bind-to-port", "multi-models", "bidirectional-streaming")
    assert {labels.get(f"com.amazonaws.sagemaker.capabilities.{name}") for name in asked} == {"true"}
    assert labels["org.opencontainers.image.title"] == "hfserve"
    config = json.loads(described("{{json .Config}}"))
    assert config["Entrypoint"][-1] == "/opt/hfserve/entrypoint.py"
    assert (config["Cmd"], config["User"]) == (["serve"], "1000")
    if Path(ENGINE).name == "podman":
        assert described("{{.ManifestType}}") == "application/vnd.docker.distribution.manifest.v2+json"
        assert "healthcheck.py" in described("{{json .HealthCheck}}")
    else:
        assert "healthcheck.py" in json.dumps(config["Healthcheck"])


def test_nothing_is_in_it_that_serving_does_not_need():
    script = """
        command -v gcc cc make javac
        find /var/lib/apt/lists /root /tmp /build /wheels -mindepth 1 -type f 2>/dev/null
        find /opt -type d -name tests
        find / -xdev \\( -name '*.whl' -o -name .cache -o -name pip.conf \\)
    """
    found = command("sh", "-c", script).stdout
    assert found == ""
    compiled = command(
        "sh",
        "-c",
        "find /opt -path '*/torch/__pycache__/functional.*.pyc' -o -path '*/boot/__pycache__/supervisor.*.pyc'",
    ).stdout
    assert len(compiled.split()) == 2


def a_wheel(directory):
    """A wheel of one module, made by hand."""
    info = "handmade-1.0.dist-info"
    files = {
        "handmade.py": "word = 'made by hand'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: handmade\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    directory.mkdir(parents=True)
    with zipfile.ZipFile(directory / "handmade-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in {**files, f"{info}/RECORD": "".join(f"{path},,\n" for path in files)}.items():
            wheel.writestr(path, content)
