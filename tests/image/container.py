"""The image, run as SageMaker runs it: `serve`, few rights, limits, nothing writable but /tmp."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

import httpx

ENGINE = os.environ.get("CONTAINER_ENGINE", "podman")
IMAGE = os.environ.get("HFSERVE_IMAGE", "")
SHARED_NETWORK = os.environ.get("HFSERVE_IMAGE_NETWORK") == "host"
"""In a network of this process that has only a loopback device, the container shares it; else its port is published."""

STRICT = (
    "--read-only", "--tmpfs", "/tmp:rw,noexec,nosuid,nodev,mode=1777", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges", "--memory", "3g", "--cpus", "2", "--shm-size", "64m",
)  # fmt: skip


def engine(*argv, check=True, patience=120):
    """What the container engine prints."""
    done = subprocess.run([ENGINE, *map(str, argv)], capture_output=True, text=True, timeout=patience, check=False)
    if check and done.returncode:
        raise AssertionError(f"{ENGINE} {' '.join(map(str, argv))}: {done.stderr}")
    return done if not check else done.stdout.strip()


def command(*argv, options=()):
    """Run a command in the image to its end."""
    return engine("run", "--rm", *_readonly(), *STRICT, *_network(), *options, IMAGE, *argv, check=False)


class Container:
    """Runs inside `with`; removed at the end, whatever happened."""

    def __init__(self, model=None, *, argv=("serve",), options=STRICT, user=None, **environment):
        self._options = [*options, *(_readonly() if "--read-only" in options else ())]
        self._options += _network("-p", "127.0.0.1::8080")
        self._options += ["-v", f"{model}:/opt/ml/model:ro"] if model else []
        self._options += ["--user", user] if user else []
        for name, value in environment.items():
            self._options += ["-e", f"{name}={value}"]
        self._argv = argv

    def __enter__(self):
        self.started = time.monotonic()
        self.id = engine("run", "-d", *self._options, IMAGE, *self._argv).splitlines()[-1]
        try:
            port = "8080" if SHARED_NETWORK else engine("port", self.id, "8080").splitlines()[0].rpartition(":")[2]
        except BaseException:
            self.__exit__()
            raise
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        return self

    def __exit__(self, *exc):
        if any(exc):
            print(self.log())
        with contextlib.suppress(AttributeError):
            self.client.close()
        engine("rm", "-f", self.id, check=False)

    def wait_until_ready(self, patience=150):
        """Seconds from `run` to a good /ping."""
        end = time.monotonic() + patience
        while self.ping() != 200:
            assert time.monotonic() < end, f"not ready:\n{self.log()}"
            assert self.running, f"it ended:\n{self.log()}"
            time.sleep(0.05)
        return time.monotonic() - self.started

    def ping(self):
        try:
            return self.client.get("/ping").status_code
        except httpx.HTTPError:
            return 0

    @property
    def running(self):
        return engine("inspect", "-f", "{{.State.Running}}", self.id) == "true"

    def post(self, body, **headers):
        return self.client.post("/invocations", json=body, headers=headers)

    def exec(self, *argv):
        return engine("exec", self.id, *argv, check=False)

    def log(self):
        done = engine("logs", self.id, check=False)
        return done.stdout + done.stderr

    def events(self):
        """The log's lines, each of which must be a JSON event."""
        return [json.loads(line) for line in engine("logs", self.id).splitlines()]

    def stop(self, patience=30):
        """Exit status and seconds of a stop, as SageMaker does it."""
        begun = time.monotonic()
        engine("stop", "-t", patience, self.id)
        return int(engine("inspect", "-f", "{{.State.ExitCode}}", self.id)), time.monotonic() - begun

    def memory(self):
        """MiB that the container's processes hold; cached files, which the kernel may drop, not counted."""
        script = """
from pathlib import Path
old, new = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
text = (old if old.is_dir() else new).joinpath("memory.stat").read_text()
stat = dict(line.split() for line in text.splitlines())
print(int(stat.get("rss", stat.get("anon"))) >> 20)
"""
        return int(self.exec("python", "-c", script).stdout)


def described(form):
    """A detail of the image, in the engine's template language."""
    return engine("image", "inspect", "-f", form, IMAGE)


def _network(*published):
    return ["--network", "host"] if SHARED_NETWORK else [*published]


def _readonly():
    return ["--read-only-tmpfs=false"] if Path(ENGINE).name == "podman" else []
