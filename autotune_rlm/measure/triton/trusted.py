"""Requests from a store are data: what of them may be run here, and what not.

Whoever may write to a store, a team's server say, may note requests. So a request is run only if it
asks for this package's own replay of kernels, from files below folders that the user of this process
named, with the content that they had when the launch was noted.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune_rlm.dtypes import dtype_bytes

from ._kernel_source import file_sha256
from .kernel_call import DATA_ONLY, FACTORY, KernelCall

_FIELDS = frozenset(field.name for field in dataclasses.fields(KernelCall))

_MAX_BYTES = 288e9  # of MI355X and B300, the largest that devices.json knows
_OLD_FACTORY = "autotune_rlm.measure.kernel_call:bench"  # in stores of 0.1


class UntrustedError(ValueError):
    """A request asks for something that is not run; the message says for what."""


def trusted_call(
    workload: Mapping[str, Any], folders: Sequence[str | os.PathLike[str]]
) -> KernelCall:
    """The launch of a request's workload (JSON) if it is of a file below ``folders`` and harmless."""
    if workload.get("factory") not in (FACTORY, _OLD_FACTORY):
        raise UntrustedError(f"it asks for the function {workload.get('factory')!r}")
    arguments = workload.get("arguments")
    if not isinstance(arguments, Mapping) or not set(arguments) <= _FIELDS:
        raise UntrustedError("it is no description of a kernel's launch")
    try:
        call = KernelCall(**arguments)
        main = {"file": call.file, "module": call.module, "sha256": call.sha256}
        for where in (main, *_kernels([call.args, call.launches])):
            _check_file(where, folders)
        for name, value in call.args.items():
            _check_tensor(name, value)
        _check_size(call.args.values())
        for launch in call.launches:
            tuple(map(int, launch["grid"])), dict(launch["config"])
    except (TypeError, ValueError, KeyError, AttributeError, OSError) as error:
        if isinstance(error, UntrustedError):
            raise
        raise UntrustedError(f"its description cannot be read: {error}") from None
    return call


def _kernels(value: Any) -> Iterator[Mapping[str, Any]]:
    """The kernels among the constants, wherever they stand."""
    if isinstance(value, Mapping):
        if "kernel" in value:
            yield dict(value["kernel"])
        for item in value.values():
            yield from _kernels(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _kernels(item)


def _check_file(where: Mapping[str, Any], folders: Sequence[str | os.PathLike[str]]) -> None:
    file = Path(os.path.realpath(where["file"]))
    if not any(file.is_relative_to(os.path.realpath(folder)) for folder in folders):
        raise UntrustedError(
            f"{file} lies in none of the folders whose kernels may be run; name its folder (--kernels)"
        )
    if file.suffix != ".py" or not file.is_file():
        raise UntrustedError(f"{file} is no Python file")
    if not where.get("sha256") or file_sha256(str(file)) != where["sha256"]:
        raise UntrustedError(f"{file} has changed since it was noted")
    module = str(where.get("module", ""))
    parts = file.with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    if (
        module not in ("", "__main__")
        and tuple(module.split(".")) != parts[-len(module.split(".")) :]
    ):
        raise UntrustedError(f"{file} is not the module {module!r}")


def _check_size(values: Iterable[Any]) -> None:
    """No more memory than any device has: a request of a shared store may ask for everything."""
    tensors = [v for v in values if isinstance(v, Mapping) and "shape" in v]
    for tensor in tensors:
        if not all(type(size) is int and size >= 0 for size in tensor["shape"]):
            raise UntrustedError(f"{tensor['shape']!r} is no shape")
    n_bytes = sum(math.prod(t["shape"]) * dtype_bytes(str(t.get("dtype", ""))) for t in tensors)
    if n_bytes > _MAX_BYTES:
        raise UntrustedError(
            f"its tensors have {n_bytes / 1e9:,.0f} GB, more than any device holds"
        )


def _check_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Mapping) or "shape" not in value:
        return
    whole = str(value.get("dtype", "")).startswith(("i", "u")) and value["dtype"] not in DATA_ONLY
    empty = 0 in value["shape"]
    if whole and not empty and "values" not in value and "fill" not in value:
        raise UntrustedError(
            f"the values of {name}, which say what the kernel reads, were not noted"
        )
