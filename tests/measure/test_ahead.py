"""Compiling ahead of measuring."""

import itertools
import time
from concurrent.futures import Future

import pytest

from autotune_rlm.measure.triton.ahead import ahead
from autotune_rlm.measure.triton.compile import CompileResult
from autotune_rlm.types import Status

OK = CompileResult(status=Status.OK)


class Compilers:
    """Futures that a test completes by hand."""

    def __init__(self):
        self.started = {}

    def __call__(self, item):
        self.started[item] = Future()
        return self.started[item]

    def finish(self, *items):
        for item in items:
            self.started[item].set_result(CompileResult(status=Status.OK, reason=str(item)))


@pytest.mark.parametrize("most", [1, 3, 50])
def test_every_item_comes_once_with_its_own_result(most):
    def start(item):
        future = Future()
        future.set_result(CompileResult(status=Status.OK, reason=str(item)))
        return [future, CompileResult(status=Status.OK, reason=str(item)), None][item % 3]

    found = dict(ahead(range(20), start, most=most))
    assert sorted(found) == list(range(20))
    assert all(found[i] is None if i % 3 == 2 else found[i].reason == str(i) for i in found)


def test_compilers_get_the_next_item_for_each_one_that_is_measured():
    compilers = Compilers()

    def start(item):  # the first four are compiled at once, later ones take their time
        future = compilers(item)
        if item < 4:
            compilers.finish(item)
        return future

    found = ahead(itertools.count(), start, most=4)
    for seen in range(1, 5):
        next(found)
        assert len(compilers.started) == 4 + seen - 1
    compilers.finish(6)
    assert next(found)[0] == 6
    assert len(compilers.started) == 8
    found.close()
    assert all(f.done() for f in compilers.started.values())  # cancelled


def test_after_the_deadline_nothing_is_waited_for():
    compilers = Compilers()
    began = time.monotonic()
    assert list(ahead(range(3), compilers, most=3, deadline=began)) == []
    assert all(f.cancelled() for f in compilers.started.values())
    at_once = ahead(range(3), lambda item: OK, most=3, deadline=began)
    assert len(list(at_once)) == 1


def test_nothing_comes_of_nothing():
    assert list(ahead([], lambda item: OK, most=3)) == []


def test_what_nobody_has_begun_is_made_here_instead_of_waiting():
    compilers = Compilers()
    free = {0, 2}

    def instead(future, item):
        assert compilers.started[item] is future
        return f"here {item}" if item in free else None

    results = ahead(range(3), compilers, most=3, instead=instead)
    assert next(results) == (0, "here 0")
    compilers.finish(1)
    assert next(results)[0] == 1  # what is ready goes first
    assert list(results) == [(2, "here 2")]
