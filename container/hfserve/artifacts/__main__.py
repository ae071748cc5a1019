"""Resolves in a process of its own: `python -m hfserve.artifacts RUN_DIR`."""

import sys
from pathlib import Path

from hfserve.artifacts import main

sys.exit(main(Path(sys.argv[1])))
