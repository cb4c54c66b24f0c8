"""Blocks on one BLAS thread, of several threads at once."""

from __future__ import annotations

import threading

from threadpoolctl import threadpool_info

from autotune_rlm._threads import one_thread


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_blocks_of_several_threads_keep_their_limit():
    before, seen = blas_threads(), []

    def work():
        for _ in range(20):
            with one_thread():
                first = blas_threads()
                seen.append((first, blas_threads()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80
    assert all(limits == ({1}, {1}) for limits in seen)
    assert blas_threads() == before


def test_nested_blocks_and_errors_give_the_threads_back():
    before = blas_threads()
    try:
        with one_thread(), one_thread():
            assert blas_threads() == {1}
            raise KeyError
    except KeyError:
        pass
    assert blas_threads() == before
