import pytest

import zoo
from hfserve.tasks import fetch


@pytest.fixture(autouse=True)
def no_deadline_of_another_test():
    """A worker's thread has the deadline of the request that it read last; here all tests share one thread."""
    fetch.until.set(float("inf"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The directory of a tiny model, made once."""
    made = {}

    def saved(name):
        if name not in made:
            made[name] = zoo.named(name, tmp_path_factory.mktemp(name))
        return made[name]

    return saved
