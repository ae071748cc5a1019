"""The process that the workers of many models are forked from: it has imported what they need, which they then share.

A request comes over a socket from the supervisor, with open files; the worker that is forked is the supervisor's own
child, for what lies between the two ends at once. It says its number and begins when told to.
"""

import argparse
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hfserve.doors import worker
from hfserve.runtimes import lean

PR_SET_PDEATHSIG = 1
MOST = 1 << 16
"""Bytes of a request."""

READY = b"ready"
"""What it says once it can fork."""

FILES = 4
"""What comes along: where to print, whom to tell the number, where to report, where to listen."""


def main() -> None:
    """python -m hfserve.doors.nursery --socket FD."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    requests = socket.socket(fileno=parser.parse_args().socket)
    supervisor = os.getppid()
    gc.set_threshold(worker.LOADING)
    prepare()
    requests.send(READY)
    while True:
        message, files, _, _ = socket.recv_fds(requests, MOST, FILES)
        if not message:
            return
        between = os.fork()
        if not between:
            requests.close()
            _become(json.loads(message), files, supervisor)
        os.waitpid(between, 0)
        for file in files:
            os.close(file)


def prepare() -> None:
    """Import what nearly every model needs; touch no GPU, whose driver does not survive a fork."""
    for name in ("torch", *(f"transformers.{name}" for name in lean.WANTED)):
        importlib.import_module(name)
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # threads of BLAS only
    gc.collect()
    gc.freeze()


def _become(request: dict[str, str], files: list[int], supervisor: int) -> NoReturn:
    """Fork once more and end, so that the worker is the supervisor's."""
    between = os.getpid()
    if os.fork():
        os._exit(0)
    try:
        printed, channel, report, shared = files
        os.setsid()
        for stream in (1, 2):
            os.dup2(printed, stream)
        os.close(printed)
        while os.getppid() == between:
            time.sleep(0.001)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)
        with socket.socket(fileno=channel) as telling:
            telling.send(str(os.getpid()).encode())
            if not telling.recv(1):
                os._exit(1)
        if numpy := sys.modules.get("numpy"):
            numpy.random.seed()  # else all workers would draw the same numbers
        worker.live(
            Path(request["run_dir"]), int(request["slot"]), report, shared=shared, name=request["name"]
        )  # fmt: skip
    finally:
        with suppress(BaseException):
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
