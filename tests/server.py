"""A real server in a process of its own, as a user starts it, for tests that knock at its public door."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import pytest

HFSERVE = str(Path(sys.executable).with_name("hfserve"))

ENGINES = {
    "mms": {"HFSERVE_ENGINE": "mms"},
    "asgi": {"HFSERVE_ENGINE": "asgi"},
    "bare": {"HFSERVE_ENGINE": "asgi", "HFSERVE_NGINX": "0"},
}
"""nginx and MMS; nginx alone; nothing in front."""


def thoroughly(value, only=True):
    """A value of a parameter that is tried in `make test-all` only."""
    return pytest.param(value, marks=pytest.mark.thorough) if only else value


CLEAN = ("HF_", "HFSERVE_", "SAGEMAKER_", "MMS_", "PORT")


class Server:
    """Started inside `with`, on a free port; left with SIGTERM, and with a look at what it leaves behind."""

    def __init__(self, model=None, *, engine="asgi", ready=True, patience=90, flags=(), **environment):
        self.engine = engine
        self.lines = []
        self._ready = ready
        self._patience = patience
        self._argv = [HFSERVE, "serve", *([str(model)] if model else []), "--port", "0", *flags]
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(CLEAN)},
            "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **ENGINES[engine], **environment,
        }  # fmt: skip

    def __enter__(self):
        self.run_dir = Path(tempfile.mkdtemp(prefix="hfs-"))
        self._environment["HFSERVE_RUN_DIR"] = str(self.run_dir)
        self.process = subprocess.Popen(
            self._argv, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.client = httpx.Client(timeout=60, trust_env=False)
        try:
            self.url = f"http://127.0.0.1:{self.event('starting')['port']}"
            self.client.base_url = self.url
            if self._ready:
                self.wait_until_ready()
        except BaseException:  # also when the test is out of time: nothing is left running
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        self.client.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not stop: {self.log()}") from None
        finally:
            self._reader.join(5)
            self.process.stdout.close()
            subprocess.run(["rm", "-rf", str(self.run_dir)], check=False)

    def _read(self):
        for line in self.process.stdout:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.lines.append({"event": line.rstrip(), "source": "raw"})

    def log(self):
        return "\n".join(json.dumps(line) for line in list(self.lines)[-60:])

    def wait(self, condition, what, patience=None):
        """Look again and again until the condition gives something, or fail with the log."""
        end = time.monotonic() + (patience or self._patience)
        while not (found := condition()):
            assert time.monotonic() < end, f"{what} did not come about; the log:\n{self.log()}"
            assert self.process.poll() is None or found, f"the server ended before {what}; the log:\n{self.log()}"
            time.sleep(0.02)
        return found

    def event(self, event, source="supervisor"):
        def found():
            return next((e for e in list(self.lines) if e["event"] == event and e["source"] == source), None)

        return self.wait(found, f"the event {event!r}")

    def wait_until_ready(self):
        self.wait(lambda: self.ping() == 200, "ready")

    def ping(self):
        try:
            return self.client.get("/ping").status_code
        except httpx.HTTPError:
            return 0

    def post(self, content=b"", *, json=None, accept=None, content_type=None, **options):
        """POST /invocations; no Content-Type unless one is named or the body is given as json."""
        headers = dict(options.pop("headers", {}))
        if content_type is not None:
            headers["Content-Type"] = content_type
        if accept is not None:
            headers["Accept"] = accept
        return self.client.post(
            "/invocations", content=content if json is None else None, json=json, headers=headers, **options
        )

    def pids(self, kind):
        """Process ids by a piece of their command line, of this server's children only."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                environment = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                cwd = str((entry / "cwd").readlink()).encode()  # nginx writes its title over its environment
                if kind in command and str(self.run_dir).encode() in environment + cwd and state != "Z":
                    found.append(int(entry.name))
        return found


def assert_error(reply, status, *, kind=None, words=()):
    """The one shape of an error."""
    assert reply.status_code == status, (reply.status_code, reply.text)
    assert reply.headers["content-type"].startswith("application/json")
    assert len(reply.content) < 2048
    error = reply.json()["error"]
    assert set(reply.json()) == {"error"}
    assert set(error) == {"status", "type", "message", "request_id"}
    assert error["status"] == status
    assert error["request_id"] == reply.headers["x-request-id"]
    if kind:
        assert error["type"] == kind
    for word in words:
        assert word in error["message"], error["message"]
    return error
