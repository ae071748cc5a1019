"""PID 1 of the image: serves, or becomes whatever else the container is asked to run."""

import os
import signal
import sys


def main(argv: list[str]) -> None:
    """`serve …` starts the supervisor in this very process; anything else replaces it."""
    if argv[:1] != ["serve"]:
        become(argv or ["sh"])
    # The kernel drops a signal that PID 1 has no handler for, and the supervisor's comes with its event loop.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from hfserve.cli import serve

    sys.argv = argv
    serve()


def become(argv: list[str]) -> None:
    """Run a command in place of this process, with a shell's exit status when there is none of that name."""
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        print(f"{argv[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main(sys.argv[1:])
