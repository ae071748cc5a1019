"""What happens when things go wrong, on every engine, with counts: requests sent = answers received."""

import collections
import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from server import HFSERVE, Server, assert_error

SLOW = """
import time
def model_fn(model_dir): return None
def predict_fn(data, model):
    time.sleep(data["seconds"])
    return data
"""
HONEST = {200, 503}


def ask(server, json):
    """The status of an answer in the one shape; 0 when the connection broke."""
    try:
        reply = server.post(json=json)
    except httpx.HTTPError:
        return 0
    if reply.status_code != 200:
        assert_error(reply, reply.status_code)
    return reply.status_code


class Load:
    """Keeps asking from several threads until it is left; counts what it was answered."""

    def __init__(self, server, clients=8, json=None):
        self.server, self.clients, self.json = server, clients, json or {"inputs": "I love this"}
        self.counts = collections.Counter()
        self._over = threading.Event()

    def __enter__(self):
        self._pool = concurrent.futures.ThreadPoolExecutor(self.clients)
        self._clients = [self._pool.submit(self._client) for _ in range(self.clients)]
        return self

    def __exit__(self, *exc):
        self._over.set()
        for client in self._clients:
            client.result(60)
        self._pool.shutdown()

    def _client(self):
        while not self._over.is_set():
            self.counts[ask(self.server, self.json)] += 1


@pytest.mark.alone
@pytest.mark.bare
def test_a_killed_worker_costs_no_request_an_honest_answer(engine):
    with Server(engine=engine) as server:
        with Load(server) as load:
            server.wait(lambda: load.counts[200] > 50, "fifty answers")
            [worker] = server.pids("hfserve.doors.worker")
            os.kill(worker, signal.SIGKILL)
            server.wait(lambda: server.ping() == 503, "a ping that tells the truth")
            server.wait(lambda: server.ping() == 200, "a new worker")
            answered = load.counts[200]
            server.wait(lambda: load.counts[200] > answered + 50, "answers of the new worker")
        unanswered = load.counts.pop(0, 0)
        assert set(load.counts) <= HONEST, load.counts
        # With nothing in front the dying process takes its own connections along.
        assert unanswered == 0 or (engine == "bare" and unanswered <= load.clients)
        assert 'hfserve_restarts_total{process="worker"} 1.0' in server.client.get("/metrics").text
        assert server.pids("hfserve.doors.worker") != [worker]


def test_a_killed_mms_or_backend_is_replaced_under_load():
    with Server(engine="mms") as server:
        for victim in ("ModelServer", "model_service_worker"):
            with Load(server) as load:
                server.wait(lambda load=load: load.counts[200] > 50, "fifty answers")
                [process] = server.pids(victim)
                os.kill(process, signal.SIGKILL)
                server.wait(lambda: server.ping() == 503, "a ping that tells the truth")
                server.wait(lambda: server.ping() == 200, "MMS again")
                answered = load.counts[200]
                server.wait(lambda load=load, n=answered: load.counts[200] > n + 50, "answers again")
            assert set(load.counts) <= HONEST, (victim, load.counts)


@pytest.mark.parametrize("engine", ["mms", "asgi"])
def test_a_killed_nginx_is_started_again(engine, model_with):
    with Server(model_with(SLOW), engine=engine) as server:
        [master] = server.pids("nginx: master")
        os.kill(master, signal.SIGKILL)
        server.wait(lambda: master not in server.pids("nginx: master") and server.ping() == 200, "nginx again")
        assert ask(server, {"seconds": 0}) == 200


@pytest.mark.once
def test_a_worker_that_hangs_is_replaced(engine, model_with):
    source = """
import os, signal
def model_fn(model_dir): return None
def predict_fn(data, model):
    if data["seconds"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    return data
"""
    with Server(model_with(source), engine=engine, HFSERVE_HANG="5", HFSERVE_TIMEOUT="7") as server:
        [worker] = server.pids("hfserve.doors.worker")
        with contextlib.suppress(httpx.HTTPError):
            assert server.post(json={"seconds": 99}).status_code in {503, 504}
        server.wait(lambda: server.pids("hfserve.doors.worker") not in ([worker], []), "another worker")
        server.wait_until_ready()
        assert ask(server, {"seconds": 0}) == 200


def test_a_worker_whose_gpu_is_broken_is_replaced(model_with):
    """[12]"""
    source = """
import torch
def model_fn(model_dir): return None
def predict_fn(data, model):
    if data["break"]:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    return data
"""
    with Server(model_with(source), engine="asgi") as server:
        [worker] = server.pids("hfserve.doors.worker")
        assert_error(server.post(json={"break": True}), 500, words=["GPU", "illegal memory access"])
        server.wait(lambda: server.pids("hfserve.doors.worker") not in ([worker], []), "another worker")
        server.wait_until_ready()
        assert ask(server, {"break": False}) == 200


def test_a_full_queue_is_503_at_once_and_says_when_to_retry(engine, model_with):
    with Server(model_with(SLOW), engine=engine, HFSERVE_MAX_QUEUED="2", MMS_DEFAULT_WORKERS_PER_MODEL="4") as server:
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            replies = list(pool.map(lambda _: server.post(json={"seconds": 0.3}), range(24)))
        counts = collections.Counter(reply.status_code for reply in replies)
        assert set(counts) == {200, 503}
        assert counts[200] >= 3
        for reply in replies:
            if reply.status_code == 503:
                assert_error(reply, 503, kind="Overloaded", words=["waiting"])
                assert int(reply.headers["retry-after"]) >= 1
        assert server.ping() == 200


@pytest.mark.alone
@pytest.mark.bare
def test_the_deadline_is_504_and_the_next_request_is_answered(engine, model_with):
    with Server(model_with(SLOW), engine=engine, SAGEMAKER_MODEL_SERVER_TIMEOUT_SECONDS="1") as server:
        started = time.monotonic()
        assert_error(server.post(json={"seconds": 4}), 504, kind="DeadlineExceeded")
        assert time.monotonic() - started < 4
        server.wait(lambda: ask(server, {"seconds": 0}) == 200, "an answer")


@pytest.mark.bare
def test_sigterm_answers_what_was_accepted_and_refuses_what_is_new(engine, model_with):
    """[3]"""
    with Server(model_with(SLOW), engine=engine) as server, concurrent.futures.ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(ask, server, {"seconds": 1.0}) for _ in range(3)]
        server.wait(lambda: in_flight(server) >= 3, "three requests in flight")
        server.process.send_signal(signal.SIGTERM)
        server.event("stopping: accepted requests are answered, new ones refused")
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            refused = client.post("/invocations", json={"seconds": 0})
            assert_error(refused, 503, kind="NotReady")
            assert "retry-after" in refused.headers
            assert client.get("/ping").status_code == 503
        assert [each.result(30) for each in accepted] == [200, 200, 200]
        assert server.process.wait(30) == 0
        assert server.pids("") == []


def in_flight(server):
    for line in server.client.get("/metrics").text.splitlines():
        if line.startswith("hfserve_requests_in_flight "):
            return float(line.split()[1])
    return 0


@pytest.mark.bare
def test_sigkill_of_the_supervisor_leaves_no_orphan(engine, model_with):
    with Server(model_with(SLOW), engine=engine) as server:
        assert len(server.pids("")) >= 2
        server.process.kill()
        server.process.wait()
        end = time.monotonic() + 15
        while server.pids("") and time.monotonic() < end:
            time.sleep(0.05)
        assert server.pids("") == []


def test_ping_is_503_with_a_reason_until_the_model_is_ready(engine, model_with):
    """[12]"""
    source = "import time\ndef model_fn(model_dir):\n    time.sleep(2)\n    return str\n"
    with Server(model_with(source), engine=engine, ready=False) as server:
        server.wait(lambda: server.ping() == 503, "a ping")
        error = assert_error(server.client.get("/ping"), 503, kind="NotReady")
        assert error["message"].startswith("starting: ")
        assert_error(server.post(json={"inputs": "x"}), 503)
        server.wait_until_ready()
        assert server.post(json={"inputs": "x"}).json() == "x"


@pytest.mark.alone
def test_ping_answers_within_two_seconds_under_full_load(demo):
    """[9, 10]"""
    with Load(demo, 16, {"inputs": ["I love this " * 30] * 64}) as load:
        demo.wait(lambda: sum(load.counts.values()) > 16, "load")
        slowest = 0.0
        for _ in range(20):
            started = time.monotonic()
            assert httpx.get(demo.url + "/ping", trust_env=False, timeout=10).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
    assert slowest < 2


@pytest.mark.alone
@pytest.mark.bare
def test_a_slow_client_is_answered_and_holds_up_nobody(demo):
    address = urlsplit(demo.url)
    body = b'{"inputs": "I love this"}'
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((address.hostname, address.port))) for _ in range(80)]
        for connection in slow:
            connection.sendall(head % len(body))
        assert ask(demo, {"inputs": "I love this"}) == 200
        for connection in slow[:40]:
            connection.sendall(body[:10])
        assert ask(demo, {"inputs": "I love this"}) == 200
        for connection in slow[:40]:
            connection.sendall(body[10:])
            assert b" 200 " in connection.recv(65536).splitlines()[0]
        for connection in slow[40:]:
            connection.settimeout(15)
            answer = connection.recv(65536)
            assert answer == b"" or b" 408 " in answer.splitlines()[0]


def test_a_client_that_goes_away_leaves_nothing_running(model_with):
    source = """
import time
def model_fn(model_dir): return []
def predict_fn(data, model):
    model.append(data["seconds"])
    time.sleep(data["seconds"])
    return model
"""
    with Server(model_with(source), engine="asgi") as server:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            gone = [
                pool.submit(httpx.post, server.url + "/invocations", json={"seconds": 2}, timeout=0.3) for _ in range(8)
            ]
            for each in gone:
                with pytest.raises(httpx.TimeoutException):
                    each.result(10)
        ran = server.post(json={"seconds": 0}).json()
        assert ran.count(2) <= 2


def test_a_port_that_is_taken_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([HFSERVE, "serve", "--port", str(port)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    assert f"cannot listen on 127.0.0.1:{port}" in done.stdout
    assert "--port" in done.stdout


@pytest.mark.parametrize("engine", ["mms", "asgi"])
def test_no_worker_waits_for_work_while_another_has_too_much(engine, model_with, tmp_path):
    source = """
import os, pathlib, time
def model_fn(model_dir): return None
def predict_fn(data, model):
    met = pathlib.Path(data["meet"])
    (met / str(os.getpid())).touch()
    while len(list(met.iterdir())) < 2:
        time.sleep(0.005)
    return os.getpid()
"""
    with (
        Server(model_with(source), engine=engine, HFSERVE_WORKERS="2", HFSERVE_TIMEOUT="20") as server,
        concurrent.futures.ThreadPoolExecutor(1) as other,
    ):
        assert len(server.pids("hfserve.doors.worker")) == 2
        for number in range(12):
            met = tmp_path / str(number)
            met.mkdir()
            first = other.submit(server.post, json={"meet": str(met)}, headers={"X-Request-Id": f"first-{number}"})
            server.wait(lambda met=met: list(met.iterdir()), "the first request to run")
            second = server.post(json={"meet": str(met)}, headers={"X-Request-Id": f"second-{number}"})
            assert (first.result().status_code, second.status_code) == (200, 200)
            assert first.result().json() != second.json()
            assert second.headers["x-request-id"] == f"second-{number}"
