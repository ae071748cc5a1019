import os
import sys

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_collection_modifyitems(config, items):
    """Of two lanes each takes whole files; those that share a virtual environment are one."""
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        place = "aws" if item.path.parent.name in {"clients", "notebooks"} else item.path.name
        item.add_marker(pytest.mark.xdist_group(place))


@pytest.fixture(autouse=True)
def no_hooks_of_another_test():
    """User code is imported under its own name, which the next test's is too."""
    yield
    sys.modules.pop("inference", None)
