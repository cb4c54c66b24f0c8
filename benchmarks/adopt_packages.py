"""Kernels of installed packages: found, ranked for a device that is not here, compiled for it.

    python -m pip install --no-deps fla-core liger-kernel torchao late-interaction-kernels einops
    python benchmarks/adopt_packages.py fla liger_kernel torchao late_interaction_kernels \
        --device "NVIDIA H100" --markdown docs/adoption-kernels.md

Per kernel a sample of its configurations is compiled with real Triton: its first one and the model's
first choice. The seconds saved are the mean CPU seconds of the sample times the number of
configurations that ``rlm_autotune`` would not measure. Arguments are guessed from the kernels'
text; where fp16 tensors do not compile, bf16 and fp32 are tried.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.metadata
import importlib.util
import json
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from autotune_rlm.devices import lookup
from autotune_rlm.integrations.triton.offline.discover import find_kernels
from autotune_rlm.integrations.triton.offline.recommend import Ranked, rank_all
from autotune_rlm.measure.triton.compile import CompilePool, CompileResult
from autotune_rlm.store.config_file import ConfigFile
from autotune_rlm.surrogate import load
from autotune_rlm.types import Candidate

DTYPES = ("fp16", "bf16", "fp32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", nargs="+", help="names to import, such as fla")
    parser.add_argument("--device", default="NVIDIA H100")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds per compilation")
    parser.add_argument("--at-most", type=int, help="kernels compiled per package, evenly chosen")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--out", type=Path, help="recommended configurations, for configs_from=")
    options = parser.parse_args()
    told = []
    with (
        tempfile.TemporaryDirectory() as cache,
        CompilePool(1, cache_dir=cache, niceness=0, timeout_s=options.timeout) as pool,
    ):
        for package in options.packages:
            told.append(adopt(package, options, pool))
            print(summary(told[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(told, indent=1))
            if options.markdown:
                options.markdown.write_text(markdown(told, options.device))


def adopt(package: str, options: Any, pool: CompilePool) -> dict[str, Any]:
    found = find_kernels(package)
    device = lookup(options.device)
    began = time.perf_counter()
    problems = [{"dtype": "fp16"}]
    ranked = list(rank_all(found.kernels, [device], problems, surrogate=load()))
    rank_s = time.perf_counter() - began
    if options.out:
        ConfigFile(r.recommendation for r in ranked if r.recommendation).save(options.out)
    rows: list[dict[str, Any]] = []
    if ranked and ranked[0].order and not options.no_compile:  # starts the compiler
        other = replace(ranked[0], device=lookup("NVIDIA A100"))
        with contextlib.suppress(Exception):
            compiled(other, list(other.order[:1]), pool)
    for i, row in enumerate(ranked):
        step = -(-len(ranked) // (options.at_most or len(ranked)))
        compiles = not options.no_compile and i % step == 0
        rows.append(tell(row, pool if compiles else None))
        print(f"  {row.where}: {rows[-1]['compiled']} {rows[-1]['reason']}", flush=True)
    return {
        "package": package,
        "version": version(package),
        "decorated": sum(1 for _ in decorated(package)),
        "not_imported": found.failed,
        "rank_s": rank_s,
        "kernels": rows,
    }


def tell(row: Ranked, pool: CompilePool | None) -> dict[str, Any]:
    n = len(row.kernel.candidates)
    told: dict[str, Any] = {
        "kernel": row.where,
        "key": list(row.kernel.key),
        "configurations": n,
        "kept": row.kept,
        "ranked": row.recommendation is not None,
        "compiled": "",
        "dtype": "",
        "compile_s": [],
        "saved_s": None,
        "reason": row.reason,
    }
    if pool is None or not row.order:
        return told
    sample = list(dict.fromkeys([row.kernel.candidates[0], row.order[0]]))
    for dtype in DTYPES:
        problem = row.kernel.default_problem({"dtype": dtype})
        attempt = Ranked(where=row.where, kernel=row.kernel, device=row.device, problem=problem)
        try:
            results, costs = compiled(attempt, sample, pool)
        except Exception as error:  # arguments that do not fit, or a heuristic that fails
            told["reason"] = told["reason"] or f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        seconds = [cost for r, cost in zip(results, costs, strict=True) if r.ok and not r.cached]
        if seconds:
            ok = sum(r.ok for r in results)
            told |= {"compiled": f"{ok}/{len(results)}", "dtype": dtype, "compile_s": seconds}
            told["saved_s"] = sum(seconds) / len(seconds) * (n - row.kept)
            told["reason"] = next((r.reason for r in results if not r.ok), "")
            return told
        told["reason"] = told["reason"] or results[0].reason
    told["compiled"] = f"0/{len(sample)}"
    return told


def compiled(
    row: Ranked, sample: list[Candidate], pool: CompilePool
) -> tuple[list[CompileResult], list[float]]:
    """Results, and the CPU seconds that each took, ptxas included."""
    results, costs = [], []
    for candidate in sample:
        began = cpu_s()
        results += [result for _, result in row.compile([candidate], pool)]
        costs.append(cpu_s() - began)
    return results, costs


def cpu_s() -> float:
    """CPU seconds of the processes that this one started, so far."""
    return sum(sum(child.cpu_times()[:4]) for child in psutil.Process().children())


def decorated(package: str) -> Iterator[str]:
    """Functions under a decorator whose name has ``autotune`` in it, and direct calls of one."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).rglob("*.py")):
            text = path.read_text("utf-8", "replace")
            if "autotune" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                for decorator in getattr(node, "decorator_list", ()):
                    if isinstance(decorator, ast.Call) and is_autotune(decorator.func):
                        yield f"{path}:{node.name}"  # type: ignore[attr-defined]


def is_autotune(function: ast.expr) -> bool:
    name = getattr(function, "attr", None) or getattr(function, "id", "")
    return name == "autotune" or name.endswith("_cache_autotune")


def version(package: str) -> str:
    names = importlib.metadata.packages_distributions().get(package, [package])
    return f"{names[0]} {importlib.metadata.version(names[0])}"


def summary(told: dict[str, Any]) -> str:
    rows = told["kernels"]
    compiled = [r for r in rows if r["compile_s"]]
    ranked = sum(r["ranked"] for r in rows)
    return (
        f"| {told['version']} | {told['decorated']} | {len(rows)} | {ranked} | {len(compiled)} | "
        f"{sum(r['configurations'] for r in rows)} | {sum(r['kept'] for r in rows)} | "
        f"{mean([s for r in compiled for s in r['compile_s']]):.2f} | "
        f"{sum(r['saved_s'] for r in compiled):.0f} | {told['rank_s']:.0f} |"
    )


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


HEADER = (
    "| package | decorated | found | ranked | compiled | configurations | kept | "
    "CPU s per compilation | CPU s saved by not compiling | seconds to rank all |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def plain(reason: str) -> str:
    """A reason's beginning, as words of a table: no code, no path of this machine."""
    first = re.sub(r" \(/[^)]*\)?", "", reason).partition(". ")[0]
    return first.replace("|", "/").replace("`", "")[:110]


def markdown(told: list[dict[str, Any]], device: str) -> str:
    lines = [
        f"# Kernels of packages, ranked and compiled for {device}",
        "",
        "Made by `benchmarks/adopt_packages.py`. What the columns mean: docs/adoption.md.",
        "",
        HEADER,
        *map(summary, told),
    ]
    for package in told:
        lines += [
            "",
            f"## {package['version']}",
            "",
            "| kernel | key | configurations | kept | compiled | tensors | CPU s saved |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for row in package["kernels"]:
            saved = "" if row["saved_s"] is None else f"{row['saved_s']:.1f}"
            note = row["compiled"] or row["reason"]
            if row["compiled"].startswith("0"):
                note = f"{row['compiled']}: {row['reason']}"
            name = row["kernel"].removeprefix(f"{package['package']}.")
            note = plain(note)
            lines.append(
                f"| `{name}` | {', '.join(row['key'])} | {row['configurations']} | {row['kept']} | "
                f"{note} | {row['dtype']} | {saved} |"
            )
        if package["not_imported"]:
            lines += ["", "Modules that cannot be imported without what they need:", ""]
            for module, reason in package["not_imported"].items():
                lines.append(f"- `{module}`: {plain(reason)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
