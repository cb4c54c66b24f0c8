"""Tests marked ``amd`` are skipped where Triton cannot link: before 3.6 it needs Debian's ``lld``."""

import pytest


def pytest_runtest_setup(item):
    if item.get_closest_marker("amd") and not _links():
        pytest.skip("this Triton needs a linker for AMD: apt install lld")


def _links():
    from triton.backends.amd.compiler import HIPBackend

    find = getattr(HIPBackend, "path_to_rocm_lld", None)
    if find is None:
        return True
    try:
        return bool(find())
    except Exception:  # Triton's own, with the places where it looked
        return False
