"""An argument of the wrong type or out of range is one error, which names it and what it was given."""

from pathlib import Path

import pytest

from autotune_rlm._checks import check_all, check_number, check_path, of_extra
from autotune_rlm.landscapes import read_landscapes, write_landscapes
from autotune_rlm.landscapes.architectures import read_architectures
from autotune_rlm.landscapes.tables import read_table, write_table
from autotune_rlm.store import Store
from autotune_rlm.types import Measurement, Status


def load_recipe(path):
    return pytest.importorskip("autotune_rlm.training.recipe").Recipe.load(path)


def versions(**options):
    return pytest.importorskip("autotune_rlm.training.finetune").Versions(**options)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: load_recipe(3), "path"),
        (lambda: Store(3), "store"),
        (lambda: versions(folder=3), "folder"),
        (lambda: versions(store=3), "store"),
        (lambda: read_landscapes(3), "path"),
        (lambda: write_landscapes(3, []), "path"),
        (lambda: read_architectures(3), "path"),
        (lambda: read_table(3), "path"),
        (lambda: write_table(None, 3), "path"),
    ],
)
def test_what_is_no_path_is_named(call, name):
    with pytest.raises(TypeError, match=f"^{name} must be a str or PathLike, got 3$"):
        call()


@pytest.mark.parametrize("status", ["fine", 3, None])
def test_a_status_is_one_of_those_that_the_error_lists(status):
    with pytest.raises(ValueError, match=f"status must be one of ok, .*skipped, got {status!r}"):
        Measurement(status=status)
    assert Measurement(status="crashed").status is Status.CRASHED


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (True, TypeError, "n must be a whole number, got True"),
        ("5", TypeError, "n must be a whole number, got '5'"),
        (2.5, TypeError, "n must be a whole number, got 2.5"),
        (0, ValueError, "n must be at least 1 and at most 9, got 0"),
        (10, ValueError, "n must be at least 1 and at most 9, got 10"),
    ],
)
def test_numbers(value, error, says):
    with pytest.raises(error, match=says):
        check_number("n", value, least=1, most=9, whole=True)


def test_lists_and_paths():
    assert check_path("path", "a/b") == Path("a/b")
    with pytest.raises(TypeError, match="names must be a list of str, got 'one'"):
        check_all("names", "one", str)
    with pytest.raises(TypeError, match="each of names must be a str, got 2"):
        check_all("names", ["one", 2], str)


def test_a_package_that_is_missing_is_named_with_its_extra():
    with (
        pytest.raises(
            ImportError, match=r"nowhere.*; flying needs the extra: .*autotune-rlm\[air\]"
        ),
        of_extra("air", "flying"),
    ):
        import nowhere  # noqa: F401
