"""Examples without a deadline, since no test asserts speed; and what tests need of a Triton before 3.6.

* Debian's ``lld`` links for AMD; without it tests marked ``amd`` are skipped.
* Its interpreter leaves its own functions in ``triton.language``, with which nothing compiles any more:
  before each test the compiler's are put back and what the interpreter added is taken out.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import pytest
from hypothesis import settings


def pytest_configure():
    settings.register_profile("tests", deadline=None)
    settings.load_profile("tests")
    _compiled_language()  # before any test interprets a kernel


def pytest_runtest_setup(item):
    if item.get_closest_marker("amd") and not _links():
        pytest.skip("this Triton needs a linker for AMD: apt install lld")
    for owner, names in _compiled_language().items():
        for name, value in names.items():
            if vars(owner).get(name) is not value:
                setattr(owner, name, value)
        for name in vars(owner).keys() - names.keys():
            delattr(owner, name)


@cache
def _compiled_language():
    try:
        installed = version("triton")
    except PackageNotFoundError:
        return {}
    if tuple(map(int, installed.split(".")[:2])) >= (3, 6):
        return {}
    import_module("triton.compiler.code_generator")  # keeps the functions that it then finds
    language = import_module("triton.language")

    classes = [value for value in vars(language.core).values() if isinstance(value, type)]
    owners = (language, language.core, language.math, *classes)
    return {owner: dict(vars(owner)) for owner in owners}


def _links():
    from triton.backends.amd.compiler import HIPBackend

    find = getattr(HIPBackend, "path_to_rocm_lld", None)
    if find is None:
        return True
    try:
        return bool(find())
    except Exception:  # Triton's own, with the places where it looked
        return False
