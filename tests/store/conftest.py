"""A store in a file."""

import pytest

from autotune_rlm.store import Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "store.sqlite"


@pytest.fixture
def store(path):
    with Store(path) as opened:
        yield opened
