import os
import sys

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def no_hooks_of_another_test():
    """User code is imported under its own name, which the next test's is too."""
    yield
    sys.modules.pop("inference", None)
