import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from hfserve.doors.mms_backend import serve

PATIENCE = 10
BACKEND = [sys.executable, "-m", "hfserve.doors.mms_backend", "--sock-name"]


class Worker:
    """A worker's end: takes connections that are handed over, each with the channel it came by."""

    def __init__(self, path):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        self.held = []

    def take(self):
        channel, _ = self._listener.accept()
        channel.settimeout(PATIENCE)
        _, (descriptor,), _, _ = socket.recv_fds(channel, 1, 1)
        connection = socket.socket(fileno=descriptor)
        connection.settimeout(PATIENCE)
        self.held.append((channel, connection))
        return connection

    def let_go(self):
        for each in self.held.pop():
            each.close()

    def close(self):
        while self.held:
            self.let_go()
        self._listener.close()


class Backend:
    """The real backend as a process, started as MMS starts it, with this process in the place of MMS."""

    def __init__(self, directory, workers):
        self.directory = directory
        self._path = directory / "mms.sock.9000"
        self._path.touch()  # one from an earlier life
        environment = {**os.environ, "HFSERVE_BACKEND_RUN_DIR": str(directory), "HFSERVE_BACKEND_WORKERS": str(workers)}
        argv = [*BACKEND, str(self._path), "--sock-type", "unix"]
        self.process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True)
        self.said = [self.process.stdout.readline().strip() for _ in range(2)]
        self._connections = []
        self._workers = []

    def connect(self, say=b""):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self._path))
        connection.sendall(say)
        self._connections.append(connection)
        return connection

    def worker(self, slot):
        self._workers.append(Worker(self.directory / f"worker-{slot}.fds"))
        return self._workers[-1]

    def wait_for_files(self, count):
        """Wait until the backend has this many open: only then has it seen what was closed."""
        end = time.monotonic() + PATIENCE
        while self.files() != count:
            assert time.monotonic() < end, self.files()
            time.sleep(0.001)

    def settled(self):
        """How many it has open once it has opened all that it starts with."""
        end, seen = time.monotonic() + PATIENCE, [self.files()]
        while len(seen) < 50:
            assert time.monotonic() < end, seen
            time.sleep(0.002)
            seen = [*seen, count] if (count := self.files()) == seen[-1] else [count]
        return seen[-1]

    def files(self):
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def close(self):
        for each in self._connections + self._workers:
            each.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def backend():
    with contextlib.ExitStack() as ends:

        def start(workers):
            directory = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="fds-")))
            return ends.enter_context(contextlib.closing(Backend(directory, workers)))

        yield start


def test_it_says_what_mms_waits_to_hear_and_leaves_its_number(backend):
    running = backend(1)
    assert running.said == [f"[PID] {running.process.pid}", "MMS worker started."]
    assert (running.directory / "backend.pid").read_text() == str(running.process.pid)


def test_a_connection_reaches_the_worker_whole(backend):
    running = backend(1)
    worker = running.worker(0)
    mms = running.connect(b"asked before it was handed over; ")
    theirs = worker.take()
    mms.sendall(b"and after")
    mms.shutdown(socket.SHUT_WR)
    assert b"".join(iter(lambda: theirs.recv(100), b"")) == b"asked before it was handed over; and after"
    theirs.sendall(b"answered")
    assert mms.recv(100) == b"answered"


def test_connections_are_spread_evenly(backend):
    running = backend(3)
    workers = [running.worker(slot) for slot in range(3)]
    for number in range(9):
        running.connect(b"%d" % number)
    taken = [[worker.take().recv(1) for _ in range(3)] for worker in workers]
    assert sorted(itertools.chain(*taken)) == [b"%d" % n for n in range(9)]


def test_a_connection_that_has_ended_frees_its_place(backend):
    running = backend(2)
    first, second = running.worker(0), running.worker(1)
    before = running.settled()
    for _ in range(4):
        running.connect()
    for worker in (first, first, second, second):
        worker.take()
    running.wait_for_files(before + 4)
    for _ in range(2):
        second.let_go()
    running.wait_for_files(before + 2)
    for say in (b"a", b"b"):
        running.connect(say)
        assert second.take().recv(1) == say
    running.wait_for_files(before + 4)
    first.let_go()
    running.wait_for_files(before + 3)
    running.connect(b"c")
    assert first.take().recv(1) == b"c"


def test_a_connection_waits_for_a_worker_that_is_not_there_yet(backend):
    running = backend(1)
    early = [running.connect(b"a"), running.connect(b"b")]
    worker = running.worker(0)
    assert {worker.take().recv(1), worker.take().recv(1)} == {b"a", b"b"}
    for _, connection in worker.held:
        connection.sendall(b"!")
    assert [each.recv(1) for each in early] == [b"!", b"!"]


def test_the_worker_that_replaces_one_gets_the_connections_that_follow(backend):
    running = backend(1)
    dying = running.worker(0)
    lost = running.connect()
    dying.take()
    dying.close()
    assert lost.recv(1) == b""
    (running.directory / "worker-0.fds").unlink()
    running.connect(b"again")
    assert running.worker(0).take().recv(5) == b"again"


def test_it_does_nothing_while_nothing_connects(backend):
    running = backend(1)
    worker = running.worker(0)
    running.connect(b"a")
    worker.take()

    def ticks():
        return sum(map(int, Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

    before = ticks()
    select.select([running.process.stdout], [], [], 0.5)  # half a second in which it has nothing to say or do
    assert ticks() - before <= 1


def test_it_ends_when_the_process_that_started_it_ends():
    with tempfile.TemporaryDirectory(prefix="fds-") as directory:
        path = f"{directory}/mms.sock"
        mms = "import subprocess, sys\nchild = subprocess.Popen(sys.argv[1:])\nprint(child.pid, flush=True)\ninput()"
        environment = {**os.environ, "HFSERVE_BACKEND_RUN_DIR": directory, "HFSERVE_BACKEND_WORKERS": "1"}
        with subprocess.Popen(
            [sys.executable, "-c", mms, *BACKEND, path], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as parent:
            backend = os.pidfd_open(int(parent.stdout.readline()))
            assert parent.stdout.readline().startswith(b"[PID]")
            parent.send_signal(signal.SIGKILL)
            ended, _, _ = select.select([backend], [], [], PATIENCE)
            os.close(backend)
        assert ended


def test_serving_ends_with_the_process_that_is_watched():
    with tempfile.TemporaryDirectory(prefix="fds-") as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/mms.sock")
        listener.listen()
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as watched:
            descriptor = os.pidfd_open(watched.pid)
            serving = threading.Thread(target=serve, args=(listener, [Path(directory, "worker-0.fds")], descriptor))
            serving.start()
            assert serving.is_alive()
        serving.join(PATIENCE)
        os.close(descriptor)
        assert not serving.is_alive()
