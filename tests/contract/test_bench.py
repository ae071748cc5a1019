"""`hfserve bench` measures real servers, and leaves nothing of those that it started."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from hfserve import artifacts
from server import CLEAN, HFSERVE

TEXTS = ["I love this", "I hate it", "It is what it is, and nobody knows why"]


def bench(*argv, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(CLEAN)}
    return subprocess.run(
        [HFSERVE, "bench", *map(str, argv)], env={**clean, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def still_running(mark):
    """Processes that have the mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_a_server_is_measured_at_its_url(demo, tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    done = bench(demo.url, "-c", "1,4", "--requests", "50", "--texts", tmp_path / "texts.txt", "--json", "-")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["bodies"]["count"] == len(TEXTS)
    for row, clients in zip(result["rows"], (1, 4), strict=True):
        assert row["clients"] == clients
        assert row["answers"] >= 50
        assert row["errors"] == {}
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert row["requests_per_s"] * row["seconds"] > 45
        assert row["characters_per_s"] > row["requests_per_s"] * len("I hate it")
    assert "clients" in done.stderr and "none" in done.stderr


def test_without_texts_the_servers_own_example_is_sent(demo):
    done = bench(demo.url, "-c", "2", "--requests", "10")
    assert done.returncode == 0, done.stderr
    assert "the example of its /openapi.json" in done.stdout


def test_a_model_is_served_for_the_time_and_nothing_of_it_is_left(tmp_path):
    mark = f"BENCH_MARK={tmp_path}"
    done = bench(
        artifacts.DEMO, "-c", "2", "--requests", "20", "--json", tmp_path / "out.json",
        HFSERVE_ENGINE="asgi", BENCH_MARK=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [row] = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["tokens_per_s"] > row["requests_per_s"]
    assert still_running(mark) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_measurement_that_is_stopped_leaves_nothing(number, tmp_path):
    mark = f"BENCH_MARK={tmp_path}"
    process = subprocess.Popen(
        [HFSERVE, "bench", str(artifacts.DEMO), "-c", "1", "--seconds", "300"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HFSERVE_ENGINE": "asgi", "BENCH_MARK": str(tmp_path)},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "demo" in process.stdout.readline()
    assert len(still_running(mark)) > 2
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    process.stdout.close()
    assert still_running(mark) == []


def test_a_wrong_request_is_told_with_the_servers_words(demo, tmp_path):
    (tmp_path / "bodies.jsonl").write_text('{"inputs": 5}')
    done = bench(demo.url, "--texts", tmp_path / "bodies.jsonl", "--requests", "10")
    assert done.returncode == 1
    assert "answered the first request 422" in done.stderr


def test_arguments_that_make_no_sense_are_refused():
    for argv in (["u", "-c", "0"], ["u", "-c", "a"], ["u", "--seconds", "-1"], ["u", "--requests", "0"], []):
        assert bench(*argv).returncode == 2
