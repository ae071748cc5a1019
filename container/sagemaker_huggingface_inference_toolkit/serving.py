"""Starts the server, for images whose entry point calls `serving.main()`."""

from hfserve.cli import serve as main

__all__ = ["main"]
