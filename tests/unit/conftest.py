import pytest

import zoo


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The directory of a tiny model, made once."""
    made = {}

    def saved(name):
        if name not in made:
            made[name] = zoo.named(name, tmp_path_factory.mktemp(name))
        return made[name]

    return saved
