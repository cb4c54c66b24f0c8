"""Seconds to tune and speed reached: ``triton.autotune`` in full beside ``rlm_autotune``.

    python benchmarks/triton_vs_rlm.py [--kernels matmul_kernel ...] [--configs 64] [--json FILE]

Needs a GPU. Kernels and problems come from ``benchmarks/kernels``; both sides get the same
configurations in the same order (a random sample of the kernel's space), an empty compile cache and
an empty store. The speed of the two chosen configurations is measured afterwards, in turn, with one
timer. ``--dry-run`` walks the whole way without a GPU: kernels are compiled for sm_90, times are made
up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton

from autotune_rlm import ConfigSpace, load_surrogate, rlm_autotune
from autotune_rlm.integrations.triton.stub import StubDriver
from autotune_rlm.measure.statistics.timing import Call, default_timer, race_calls
from autotune_rlm.record.suite import SuiteKernel, load_suite

DEFAULT = (
    "matmul_kernel", "softmax_rows", "layer_norm_forward", "attention_forward", "swiglu_forward",
    "cross_entropy_kernel", "transpose_2d", "rotary_embedding",
)  # fmt: skip


def choose_kernels(names: list[str]) -> dict[str, SuiteKernel]:
    """The kernels asked for; by default those of ``DEFAULT`` that there are, and others up to 8."""
    suite = load_suite("all")
    if names:
        unknown = [name for name in names if name not in suite]
        if unknown:
            raise SystemExit(f"no kernel {', '.join(unknown)}; there are {', '.join(suite)}")
        return {name: suite[name] for name in names}
    chosen = [name for name in DEFAULT if name in suite]
    chosen += [name for name in suite if name not in chosen][: 8 - len(chosen)]
    return {name: suite[name] for name in chosen}


def sampled(kernel: SuiteKernel, n: int) -> list[triton.Config]:
    """Up to ``n`` configurations of the kernel's space as Triton's."""
    drawn = kernel.space.sample(n, seed=0)
    return [config for one in drawn for config in _space_of(one).to_triton()]


def _space_of(config: dict[str, Any]) -> ConfigSpace:
    return ConfigSpace(**{name: [value] for name, value in config.items()})


@contextlib.contextmanager
def nothing_compiled(kernel: SuiteKernel) -> Iterator[None]:
    """An empty compile cache, on disk and in the kernel."""
    before = os.environ.get("TRITON_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRITON_CACHE_DIR"] = folder
        kernel.fn.device_caches.clear()
        try:
            yield
        finally:
            kernel.fn.device_caches.clear()
            if before is None:
                del os.environ["TRITON_CACHE_DIR"]
            else:
                os.environ["TRITON_CACHE_DIR"] = before


def tune(tuned: Any, kernel: SuiteKernel, args: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Seconds of the first launch, and what was chosen."""
    begin = time.perf_counter()
    tuned[kernel.grid](**args)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin, tuned.best_config.all_kwargs()


def speeds(kernel: SuiteKernel, args: dict[str, Any], configs: list[dict[str, Any]]) -> list[float]:
    """Milliseconds of each configuration, measured in turn."""
    timer = default_timer()
    calls = [Call(lambda config=config: kernel.launch(args, config)) for config in configs]
    timings, _ = race_calls(calls, timer=timer, budget_s=2.0)
    return [timing.interval.median for timing in timings]


def compare(name: str, kernel: SuiteKernel, problem: Any, options: Any) -> dict[str, Any]:
    """One kernel and problem, both ways."""
    device = "cpu" if options.dry_run else "cuda"
    args = kernel.make_args(problem, device, torch.Generator(device).manual_seed(0))
    configs = sampled(kernel, options.configs)
    common = {
        "configs": configs,
        "key": [n for n, value in args.items() if type(value) is int],
        "reset_to_zero": list(kernel.reset) or None,
    }
    row: dict[str, Any] = {"kernel": name, "problem": dict(problem), "n_configs": len(configs)}
    with nothing_compiled(kernel):
        full = triton.autotune(**common)(kernel.fn)
        row["triton_s"], theirs = tune(full, kernel, args)
    with nothing_compiled(kernel), tempfile.TemporaryDirectory() as folder:
        ours = rlm_autotune(**common, budget=options.budget, store=f"{folder}/store.sqlite")
        tuned = ours(kernel.fn)
        row["rlm_s"], mine = tune(tuned, kernel, args)
        row["measured"] = len(tuned.configs_timings)
    row["triton_ms"], row["rlm_ms"] = speeds(kernel, args, [theirs, mine])
    row["times_faster_to_tune"] = row["triton_s"] / row["rlm_s"]
    row["slower_by"] = row["rlm_ms"] / row["triton_ms"] - 1
    return row


def markdown(rows: list[dict[str, Any]], header: str) -> str:
    """The table for docs/."""
    lines = [
        header,
        "",
        "| kernel | problem | configurations | measured | triton.autotune s | rlm_autotune s "
        "| faster to tune | result slower by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        problem = " ".join(f"{k}={v}" for k, v in row["problem"].items())
        lines.append(
            f"| {row['kernel']} | {problem} | {row['n_configs']} | {row['measured']} "
            f"| {row['triton_s']:.1f} | {row['rlm_s']:.1f} | {row['times_faster_to_tune']:.1f} x "
            f"| {row['slower_by']:.1%} |"
        )
    faster = statistics.geometric_mean(row["times_faster_to_tune"] for row in rows)
    slower = statistics.median(row["slower_by"] for row in rows)
    return "\n".join(
        [*lines, "", f"Geometric mean {faster:.1f} x faster, median {slower:.1%} slower."]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", nargs="*", default=[], help="names in benchmarks/kernels")
    parser.add_argument("--problems", type=int, default=2, help="problems of each kernel")
    parser.add_argument("--configs", type=int, default=64, help="configurations of each kernel")
    parser.add_argument("--budget", type=int, help="how many rlm_autotune may measure")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU, with made-up times")
    options = parser.parse_args()
    if not options.dry_run and not torch.cuda.is_available():
        print("No GPU here: nothing can be timed. --dry-run walks the way with made-up times.")
        return 1
    begin = time.perf_counter()
    load_surrogate()
    where = "a made-up device" if options.dry_run else torch.cuda.get_device_name()
    header = (
        f"{where}, Triton {triton.__version__}, torch {torch.__version__}; the surrogate was loaded "
        f"once before, in {time.perf_counter() - begin:.1f} s."
    )
    rows: list[dict[str, Any]] = []
    with StubDriver() if options.dry_run else contextlib.nullcontext():
        for name, kernel in choose_kernels(options.kernels).items():
            problems = kernel.small if options.dry_run else kernel.problems
            middle = len(problems) // 2
            for problem in problems[middle : middle + options.problems]:
                try:
                    rows.append(compare(name, kernel, problem, options))
                except Exception as error:
                    print(f"{name} {dict(problem)}: {type(error).__name__}: {error}")
                    continue
                print(
                    f"{name}: {rows[-1]['triton_s']:.1f} s, {rows[-1]['rlm_s']:.1f} s", flush=True
                )
                if options.json:
                    options.json.write_text(json.dumps({"header": header, "rows": rows}, indent=1))
    if not rows:
        return 1
    table = markdown(rows, header)
    print(table)
    if options.markdown:
        options.markdown.write_text(table + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
