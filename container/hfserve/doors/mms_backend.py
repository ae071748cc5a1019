"""What Multi Model Server starts as its backend: hands each of its connections to a worker, and does nothing else.

The workers are the supervisor's, so that they live, die and are replaced alike behind every engine. A connection goes
to the worker that has the fewest; when a worker is replaced, MMS connects again, and those connections wait here until
the new one listens. The socket a connection was handed over by stays open as long as the connection: that is the count.
Of many models each has a process like this one; the path that MMS knows of it is the directory of its sockets.
"""

import argparse
import os
import selectors
import socket
from pathlib import Path

RETRY = 0.05
"""Seconds between two tries to reach a worker, while a connection waits for one."""


def main() -> None:
    """Accept until MMS is gone; then leave too."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sock-name", required=True)
    parser.add_argument("--model-path", type=Path)
    given = parser.parse_known_args()[0]
    path = given.sock_name
    mms = os.pidfd_open(os.getppid())
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1024)
    run_dir = Path(os.environ.get("HFSERVE_BACKEND_RUN_DIR") or given.model_path)
    workers = int(os.environ["HFSERVE_BACKEND_WORKERS"])
    (run_dir / "backend.pid").write_text(str(os.getpid()))
    print(f"[PID] {os.getpid()}\nMMS worker started.", flush=True)
    serve(listener, [run_dir / f"worker-{slot}.fds" for slot in range(workers)], mms)


def serve(listener: socket.socket, workers: list[Path], mms: int) -> None:
    """Hand out connections until `mms`, a descriptor of the process that started this one, says it has ended."""
    waiting: list[tuple[socket.socket, int]] = []
    held = [0] * len(workers)
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(mms, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(RETRY if waiting else None):
                if key.fileobj == mms:
                    return
                if key.fileobj is listener:
                    slot = min(range(len(workers)), key=held.__getitem__)
                    held[slot] += 1
                    waiting.append((listener.accept()[0], slot))
                else:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
                    held[key.data] -= 1
            waiting = [each for each in waiting if not hand_over(*each, workers[each[1]], selector)]


def hand_over(connection: socket.socket, slot: int, worker: Path, selector: selectors.BaseSelector) -> bool:
    """Give a connection to the worker that listens at a path; False when none does."""
    channel = socket.socket(socket.AF_UNIX)
    try:
        channel.connect(str(worker))
        socket.send_fds(channel, [b"c"], [connection.fileno()])
    except OSError:
        channel.close()
        return False
    connection.close()
    selector.register(channel, selectors.EVENT_READ, slot)
    return True


if __name__ == "__main__":
    main()
