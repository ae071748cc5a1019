import os
import sys

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before torch is imported, here and by the servers: threads that wait for each other do not keep another lane's core.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(autouse=True)
def no_hooks_of_another_test():
    """User code is imported under its own name, which the next test's is too."""
    yield
    sys.modules.pop("inference", None)
