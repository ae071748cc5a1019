"""Runs a notebook where this is started, and writes what it shows as Markdown: `execute.py NOTEBOOK FOLDER`.

For a Python that requirements-clients.txt and requirements-notebooks.txt were installed for.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

PATIENCE = 600


def main(notebook: str, folder: str) -> None:
    source, target = Path(notebook), Path(folder)
    ran = nbformat.read(source, 4)
    NotebookClient(ran, timeout=PATIENCE, coalesce_streams=True, resources={"metadata": {"path": "."}}).execute()
    pictures = f"{source.stem}_files"
    named = {"output_files_dir": pictures, "unique_key": source.stem}
    page, about = MarkdownExporter().from_notebook_node(ran, named)
    (target / f"{source.stem}.md").write_text(page)
    for name, content in about["outputs"].items():
        (target / pictures).mkdir(exist_ok=True)
        (target / name).write_bytes(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
