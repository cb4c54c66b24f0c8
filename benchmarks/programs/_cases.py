"""What the programs share: their arguments, and cases of which any may fail."""

import argparse
import contextlib
import importlib
import importlib.util
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch

from autotune_rlm.measure.errors import classify

Case = tuple[str, Callable[[], Any]]


def arguments(package: str) -> argparse.Namespace:
    """The command line; ends the program where ``package`` is not installed.

    ``device`` is ``meta`` where there is no accelerator: tensors without values, which is enough for
    ``record --compile-only``.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", help="torch device; by default the accelerator, else meta")
    parser.add_argument("--only", default="", help="only cases with this in their names")
    parser.add_argument("--shapes", type=int, help="only the first so many shapes of each operator")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no case after this time")
    given = parser.parse_args()
    if importlib.util.find_spec(package) is None:
        print(f"{package} is not installed: nothing to run", file=sys.stderr)
        raise SystemExit(0)
    if given.device is None:
        here = torch.accelerator.is_available()
        given.device = str(torch.accelerator.current_accelerator()) if here else "meta"
    return given


def run(cases: Iterable[Case], given: argparse.Namespace) -> None:
    """Run each case, then what its outputs' gradients launch; tell at once which failed and why."""
    began, done, failed = time.monotonic(), 0, 0
    for name, case in cases:
        if given.only not in name:
            continue
        if time.monotonic() - began > given.seconds:
            print(f"stopped after {given.seconds:g} s, before {name}", file=sys.stderr)
            break
        try:
            _differentiate(case())
            if given.device not in ("cpu", "meta"):
                torch.accelerator.synchronize()
            done += 1
        except Exception as error:
            failed += 1
            why = " ".join(str(error).split())[:200]
            print(f"{name} failed: {type(error).__name__}: {why}", file=sys.stderr, flush=True)
            if classify(error).poisoned:
                raise  # the device answers nothing any more
    print(f"{done} cases ran, {failed} failed", file=sys.stderr)


def module(name: str) -> Any:
    """A module, or a stand-in whose every attribute fails when it is called."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        return _Absent(name, error)


class _Absent:
    def __init__(self, name: str, error: Exception) -> None:
        self._why = f"{name}: {error}"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise ImportError(self._why)

        return fail


def _differentiate(output: Any) -> None:
    outputs = output if isinstance(output, (tuple, list)) else (output,)
    wanted = [o for o in outputs if isinstance(o, torch.Tensor) and o.requires_grad]
    if wanted:
        with contextlib.suppress(NotImplementedError):  # some operators are for inference only
            torch.autograd.backward(wanted, [torch.ones_like(o) for o in wanted])
