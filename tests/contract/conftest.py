import shutil
from pathlib import Path

import pytest

from server import ENGINES, Server, thoroughly

HOOKS = Path(__file__).parent.parent / "hooks"


def pytest_generate_tests(metafunc):
    """Behind nginx, with Multi Model Server and without, unless a test is marked otherwise (pyproject.toml)."""
    own = [mark for mark in metafunc.definition.iter_markers("parametrize") if "engine" in mark.args[0]]
    if "engine" in metafunc.fixturenames and not own:
        marked = metafunc.definition.get_closest_marker
        thorough = {"bare"} | ({"mms"} if marked("once") else set())
        names = [thoroughly(name, name in thorough) for name in ENGINES if name != "bare" or marked("bare")]
        metafunc.parametrize("engine", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def engine(request):
    if request.param == "mms" and not (shutil.which("java") and shutil.which("nginx")):
        pytest.skip("nginx and java are not installed")
    return request.param


@pytest.fixture(scope="session")
def demo(engine):
    """The demo model, on each engine."""
    with Server(engine=engine, HFSERVE_MAX_BODY="3000000", HFSERVE_BODY_TIMEOUT="3") as server:
        yield server


@pytest.fixture
def model_with(tmp_path):
    """A model directory that holds only a `code/inference.py`."""

    def make(source, **files):
        code = tmp_path / "model" / "code"
        code.mkdir(parents=True, exist_ok=True)
        (code / "inference.py").write_text(source)
        for name, content in files.items():
            (code / name).write_text(content)
        return tmp_path / "model"

    return make
