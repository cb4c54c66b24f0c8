"""The programs behind the landscapes of ``data/recordings``.

    autotune-rlm bench kernels data/recordings/h100_suite.jsonl.gz --programs benchmarks/programs/own.py

The suite's kernels and the attention are the project's own. fla-core's are looked up in the installed
package ``fla-core``; without it they are left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import triton

from autotune_rlm._files import run_file
from autotune_rlm.ir import Reader, missing_arguments, with_heuristics
from autotune_rlm.landscapes import read_landscapes
from autotune_rlm.record.suite import load_suite, torch_dtype

HERE = Path(__file__).parent
SUITE = load_suite(HERE.parent / "kernels")
Problem = Mapping[str, Any]


def tensors(problem: Problem) -> dict[str, Any]:
    """The arguments of a recorded problem, with a tensor without values for each description."""
    return {
        name: torch.empty_strided(
            value["shape"], value["strides"], dtype=torch_dtype(value["dtype"]), device="meta"
        )
        if isinstance(value, Mapping)
        else value
        for name, value in problem.items()
        if name != "grid"
    }


def program(kernel: Any, grid: Callable[[Problem], tuple[int, ...]]) -> Callable[..., Any]:
    """An entry of ``PROGRAMS`` for a kernel whose problems are its arguments."""

    def of(problem: Problem, config: Mapping[str, Any]) -> dict[str, Any]:
        arguments = {**tensors(problem), **config}
        return {
            "kernel": kernel,
            "arguments": arguments,
            "grid": tuple(problem.get("grid") or grid(arguments)),
        }

    return of


def attention_grid(given: Problem) -> tuple[int, ...]:
    return triton.cdiv(given["N"], given["BLOCK_M"]), given["Z"] * given["H"]


def fla_grid(given: Problem) -> tuple[int, ...]:
    """Tiles of the values' width; chunks, except where a program goes through them; heads."""
    width, block = next((given[n], given["B" + n]) for n in "VS" if "B" + n in given)
    batch, length = next(
        t.shape[:2] for t in given.values() if isinstance(t, torch.Tensor) and t.ndim == 4
    )
    chunks = () if "chunk_offsets" in given else (triton.cdiv(length, given["BT"]),)
    return (triton.cdiv(width, block), *chunks, batch * given["H"])


def fla_kernel(name: str, given: Problem) -> Any:
    """fla-core's kernel of this name that takes these arguments and needs no others."""
    folder = Path(importlib.util.find_spec("fla").submodule_search_locations[0])  # type: ignore
    for file in sorted(folder.rglob("*.py")):
        if re.search(rf"^def {name}\(", file.read_text(), re.MULTILINE):
            parts = file.relative_to(folder.parent).with_suffix("").parts
            kernel = getattr(importlib.import_module(".".join(parts)), name)
            plain = Reader(kernel).kernel
            if not missing_arguments(plain, with_heuristics(kernel, given)):
                return kernel
    raise LookupError(f"fla-core has no kernel {name!r} with these arguments")


def fla_program(name: str) -> Callable[..., Any]:
    """An entry of ``PROGRAMS`` for a kernel of fla-core."""

    def of(problem: Problem, config: Mapping[str, Any]) -> dict[str, Any]:
        return program(fla_kernel(name, {**tensors(problem), **config}), fla_grid)(problem, config)

    return of


PROGRAMS = {name: program(kernel.fn, kernel.grid) for name, kernel in SUITE.items()}
attention = run_file(HERE / "attention.py", "_own_attention").attention
PROGRAMS["attention"] = program(attention, attention_grid)
if importlib.util.find_spec("fla"):
    recorded = read_landscapes(HERE.parents[1] / "data/recordings/h100_fla.csv.gz")
    PROGRAMS |= {x.task.kernel: fla_program(x.task.kernel) for x in recorded}
