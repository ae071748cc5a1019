"""Tasks: a table of them, how one is found, and one file per family."""
