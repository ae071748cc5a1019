import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FIGURES = Path(os.environ.get("HFSERVE_IMAGE_FIGURES", os.devnull))

if not os.environ.get("HFSERVE_IMAGE"):
    collect_ignore = ["test_image.py"]


@pytest.fixture(scope="session")
def figures():
    """Says a figure for the log of the image test."""

    def say(line):
        with FIGURES.open("a") as file:
            file.write(f"{line}\n")

    return say


@pytest.fixture
def demo_model(tmp_path):
    """A model directory as SageMaker mounts it."""
    model = tmp_path / "model"
    shutil.copytree(ROOT / "container" / "hfserve" / "demo", model)
    return model


@pytest.fixture
def hooks(tmp_path):
    """A model directory that holds `code/`: the hooks, and files beside them."""

    def make(source, **files):
        code = tmp_path / "hooks" / "code"
        code.mkdir(parents=True)
        (code / "inference.py").write_text(source)
        for name, content in files.items():
            (code / name).write_text(content)
        return code.parent

    return make
