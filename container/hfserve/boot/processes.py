"""The processes that the supervisor starts: each in a session of its own, heard, waited for, and ended whole."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from hfserve.logs import fold

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None)

NOISE = "WARNING: sun.reflect.Reflection.getCallerClass is not supported"
"""What log4j inside MMS says of every Java since 9."""

Sink = Callable[[dict[str, object]], None]


class Child:
    """A running process; `ended` is its exit status, negative for a signal."""

    def __init__(self, name: str, pid: int, ended: "asyncio.Future[int]") -> None:
        self.name = name
        self.pid = pid
        self.ended = ended
        self.heard: asyncio.Task[None]

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return not self.ended.done()

    def signal(self, number: int) -> None:
        """Signal the process itself."""
        if self.running:
            os.kill(self.pid, number)

    def kill_session(self) -> None:
        """Kill whatever is left of its session: what it started too."""
        for pid in session(self.pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    async def end(self, number: int, patience: float) -> None:
        """Ask it to end; kill what is left when it has not."""
        self.signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self.ended), patience)
        self.kill_session()


class Processes:
    """Starts children, folds what they print into the log, and reaps all, adopted orphans too (contract row 2)."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._children: dict[int, Child] = {}
        self._readers: set[asyncio.Task[None]] = set()
        _LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def start(
        self, name: str, argv: Sequence[str], *, environment: Mapping[str, str], source: str | None = None,
        pass_fds: Sequence[int] = (), if_parent_dies: int = signal.SIGKILL, cwd: Path | None = None,
        terminal: bool = False, hear: Sink | None = None,
    ) -> Child:  # fmt: skip
        """Start a process. Its standard error is the terminal's when `terminal` is true, for progress bars.

        What it prints goes to `hear` too.
        """

        def before() -> None:
            _LIBC.prctl(PR_SET_PDEATHSIG, if_parent_dies)

        process = subprocess.Popen(
            argv, env=dict(environment), pass_fds=pass_fds, start_new_session=True, preexec_fn=before, cwd=cwd,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=None if terminal else subprocess.STDOUT,
        )  # fmt: skip
        process.returncode = 0  # waiting for it is up to `_reap`
        assert process.stdout
        return self._child(name, process.pid, process.stdout, source or name, hear)

    def pids(self) -> list[int]:
        """The children that have not been reaped, each with a session of its own."""
        return list(self._children)

    def adopt(self, name: str, pid: int, printed: int) -> Child:
        """Take on a process that another one started for us; `printed` is the pipe it prints into."""
        child = self._child(name, pid, os.fdopen(printed, "rb", 0), name, None)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            self._children.pop(pid, None)
            child.ended.set_result(-signal.SIGKILL)
        return child

    async def heard(self) -> None:
        """Wait until all that the ended processes printed is in the log."""
        if self._readers:
            await asyncio.wait(self._readers, timeout=1)

    def _child(self, name: str, pid: int, printed: IO[bytes], source: str, hear: Sink | None) -> Child:
        child = Child(name, pid, asyncio.get_running_loop().create_future())
        self._children[pid] = child
        child.heard = asyncio.ensure_future(self._listen(printed, source, hear))
        self._readers.add(child.heard)
        child.heard.add_done_callback(self._readers.discard)
        return child

    async def _listen(self, printed: IO[bytes], source: str, hear: Sink | None) -> None:
        reader = asyncio.StreamReader(limit=1 << 20)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), printed)
        try:
            while line := await _line(reader):
                text = line.decode("utf-8", "replace").rstrip()
                if text and not text.startswith(NOISE):
                    event = fold(text, source, _level(text))
                    self._sink(event)
                    if hear:
                        hear(event)
        finally:
            transport.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self._children.pop(pid, None)
            if child and not child.ended.done():
                child.ended.set_result(os.waitstatus_to_exitcode(status))


async def _line(reader: asyncio.StreamReader) -> bytes:
    """A line, or as much of it as fits; empty at the end."""
    try:
        return await reader.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await reader.readexactly(error.consumed)


def _level(text: str) -> str:
    """The level that a line of nginx's or Java's names."""
    head = text[:60]
    if (
        "[emerg]" in head
        or "[crit]" in head
        or "[alert]" in head
        or "[error]" in head
        or head.startswith(("ERROR", "FATAL"))
    ):
        return "error"
    return "warning" if "[warn]" in head or head.startswith("WARN") else "info"


def session(leader: int) -> list[int]:
    """The processes of a session, whatever groups they made."""
    return sessions().get(leader, [])


def sessions() -> dict[int, list[int]]:
    """All processes by the leader of their session."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(entry.name)
            found.setdefault(os.getsid(pid), []).append(pid)
    return found


def memory(pid: int) -> int:
    """Bytes of a process, shared pages divided among their users."""
    return _pages(pid, "Pss:")


def private_memory(pid: int) -> int:
    """Bytes that are free again when a process ends: those it shares with none."""
    return _pages(pid, "Private_")


def _pages(pid: int, kind: str) -> int:
    with contextlib.suppress(OSError):  # it has ended
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(kind))
    return 0


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"
