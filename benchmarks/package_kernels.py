"""Compiles the Triton kernels of installed packages for several targets: what the compiler says of them.

    python benchmarks/package_kernels.py FOLDER... --out kernels.jsonl --minutes 30

Every ``triton.jit`` function of the folders' Python files that asks for its program id is taken out of
its file with the functions that it calls, so that the packages need not be importable. Its arguments
are guessed from their names and uses; a guess that does not compile is changed a few times and then
given up. Each kernel is compiled with three sets of block sizes, warps and stages, each for two of five
targets. The extracted texts stay in ``--work``; the record holds numbers and hashes of texts.

    python benchmarks/package_kernels.py --out kernels.jsonl --table data/package_kernels/kernels.csv.gz

joins the record with what the first IR says of the same kernels, and prints how far predicted registers
and shared memory are from the compiler's.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import importlib.util
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autotune_rlm.devices import lookup
from autotune_rlm.ir import facts_of
from autotune_rlm.measure.triton.compile import CompilePool, CompileSpec, parse_target

TARGETS = ("sm_80", "gfx942"), ("sm_90", "gfx1100"), ("sm_100", "sm_80")
VARIANTS = (
    {"block": 64, "num_warps": 4, "num_stages": 3, "dtype": "bf16"},
    {"block": 128, "num_warps": 8, "num_stages": 2, "dtype": "fp16"},
    {"block": 32, "num_warps": 4, "num_stages": 4, "dtype": "fp32"},
)
DEVICES = {
    "sm_80": "NVIDIA A100",
    "sm_90": "NVIDIA H100",
    "sm_100": "NVIDIA B200",
    "gfx942": "AMD MI300X",
    "gfx1100": "AMD RX 7900 XTX",
}
LONG = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
HEAD = """import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice
tldevice = libdevice
tl_extra_shim = libdevice
"""
FLAG = re.compile(
    r"^(is|has|use|even|with|need|do|enable|apply|save|store|out|return|no|mask|allow|add|trans)_"
    r"|causal|_flag|inplace|transpose|varlen|reverse",
    re.I,
)
INTEGER = re.compile(
    r"idx|index|indices|ind|offset|seqlen|lens?$|ids?$|table|loc|slot|map|num|pos|label|target",
    re.I,
)
REAL = re.compile(
    r"eps|scale$|alpha|beta|lr|decay|momentum|prob|^p$|softcap|gamma|weight|value|min|max", re.I
)
BLOCK = re.compile(r"block|tile|^B[A-Z]$|^BS$|chunk", re.I)


@dataclass(frozen=True)
class Extracted:
    """A kernel in a file of its own, with what is known of its parameters."""

    name: str
    file: Path
    digest: str
    parameters: tuple[str, ...]
    constexprs: frozenset[str]
    pointers: frozenset[str]
    defaults: dict[str, Any]
    configs: tuple[dict[str, Any], ...]


def _is_jit(function: ast.FunctionDef) -> bool:
    return any(
        "triton.jit" in (text := ast.unparse(d)) or text == "jit" for d in function.decorator_list
    )


def _leftmost(node: ast.AST) -> str | None:
    while True:
        if isinstance(node, ast.BinOp):
            node = node.left
        elif isinstance(node, (ast.Subscript, ast.Attribute)):
            node = node.value
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("to", "cast"):
                node = node.func.value
            elif node.args:
                node = node.args[0]
            else:
                return None
        else:
            return node.id if isinstance(node, ast.Name) else None


def _pointers(function: ast.FunctionDef, names: set[str]) -> set[str]:
    """Parameters that addresses start from."""
    alias: dict[str, str] = {}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            source = _leftmost(node.value)
            if source and source != node.targets[0].id:
                alias.setdefault(node.targets[0].id, source)
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            called = node.func.attr
            if called in ("load", "store", "make_block_ptr") or called.startswith("atomic"):
                name = _leftmost(node.args[0])
                for _ in range(8):
                    if name is None or name in names:
                        break
                    name = alias.get(name)
                if name in names:
                    found.add(name)
    return found


def _literal_configs(function: ast.FunctionDef) -> tuple[dict[str, Any], ...]:
    found = []
    for decorator in function.decorator_list:
        for node in ast.walk(decorator):
            if (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith("Config")
                and node.args
            ):
                try:
                    config = dict(ast.literal_eval(node.args[0]))
                    config |= {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
                except (ValueError, TypeError):
                    continue
                found.append({k: v for k, v in config.items() if k != "pre_hook"})
    return tuple(found)


def extract(file: Path, work: Path) -> Iterator[Extracted]:
    """The kernels of one file, each in a file of its own with the helpers of the original."""
    try:
        tree = ast.parse(file.read_text(errors="replace"))
    except SyntaxError:
        return
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and _is_jit(n)}
    constants = [
        n for n in tree.body
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)
        and isinstance(n.value, (ast.Constant, ast.Call))
        and re.fullmatch(r"tl\.constexpr\(.*\)|[-\d.e]+|True|False", ast.unparse(n.value))
    ]  # fmt: skip
    plain = {}
    for name, function in functions.items():
        copy = ast.FunctionDef(
            name=name, args=function.args, body=function.body, returns=None, type_comment=None,
            decorator_list=[ast.parse("triton.jit", mode="eval").body], type_params=[],
        )  # fmt: skip
        plain[name] = ast.unparse(ast.fix_missing_locations(copy))
    for name, function in functions.items():
        if "program_id" not in plain[name]:
            continue
        digest = hashlib.sha256(re.sub(rf"\b{name}\b", "kernel", plain[name]).encode()).hexdigest()[
            :16
        ]
        target = work / f"k{digest}.py"
        if not target.exists():
            body = [ast.unparse(c) for c in constants] + list(plain.values())
            target.write_text(HEAD + "\n\n".join(body) + "\n")
        arguments = [*function.args.args, *function.args.kwonlyargs]
        constexprs = {
            a.arg for a in arguments if a.annotation and "constexpr" in ast.unparse(a.annotation)
        }
        defaults = {}
        given = function.args.args[len(function.args.args) - len(function.args.defaults) :]
        for a, value in zip(given, function.args.defaults, strict=True):
            if isinstance(value, ast.Constant):
                defaults[a.arg] = value.value
        names = {a.arg for a in arguments}
        yield Extracted(
            name, target, digest, tuple(a.arg for a in arguments), frozenset(constexprs),
            frozenset(_pointers(function, names - constexprs)), defaults, _literal_configs(function),
        )  # fmt: skip


def guess(kernel: Extracted, variant: int, attempt: int) -> tuple[dict[str, Any], dict[str, int]]:
    """Arguments and options of one compilation."""
    v = VARIANTS[variant]
    config = dict(kernel.configs[variant % len(kernel.configs)]) if kernel.configs else {}
    options = {o: config.pop(o, v[o]) for o in ("num_warps", "num_stages")}
    arguments: dict[str, Any] = {}
    for i, name in enumerate(kernel.parameters):
        low = name.lower()
        if name in kernel.constexprs:
            arguments[name] = _constant(kernel, name, v, config, attempt)
        elif (
            name in kernel.pointers
            or "ptr" in low
            or (attempt % 2 == 1 and i < 3 and not low.startswith("str"))
        ):
            whole = INTEGER.search(low.removesuffix("_ptr").removesuffix("_ptrs"))
            exact = re.search(r"scale|lse|state|norm|mean|rstd", low)
            dtype = "i32" if whole else "fp32" if exact else v["dtype"]
            arguments[name] = "*" + dtype
        elif low.startswith("stride") or low.startswith("s_") or "stride" in low:
            arguments[name] = 1 if re.search(r"(_d|_k|1|_c|_last)$", low) and attempt < 2 else 4096
        elif REAL.search(low) and attempt != 2:
            arguments[name] = 0.125
        else:
            arguments[name] = 1024 if attempt < 2 else 4096
    return arguments, options


def _constant(
    kernel: Extracted, name: str, v: dict[str, Any], config: dict[str, Any], attempt: int
) -> Any:
    low = name.lower()
    if name in config:
        return config[name]
    if low in ("num_warps", "num_stages"):
        return v[low]
    if "dtype" in low or low.endswith("_type"):
        return {"dtype": {"bf16": "bf16", "fp16": "fp16", "fp32": "fp32"}[v["dtype"]]}
    if FLAG.search(name):
        return attempt % 2 == 1
    if BLOCK.search(name):
        rows = re.search(r"_?m$|row|_t$|^bt$", low)
        return v["block"] // (2 if rows and v["block"] > 32 else 1)
    if name in kernel.defaults and kernel.defaults[name] is not None:
        return kernel.defaults[name]
    if re.search(r"group", low):
        return 8 if attempt < 2 else 128
    if re.search(r"dim|^d$|^k$|^v$|hidden|size|^n$|^m$|pow2|padded|width", low):
        return 64 if attempt < 2 else 128
    return (8, 1, 16, 4)[attempt]


def spec_of(
    kernel: Extracted, arguments: dict[str, Any], options: dict[str, int], target: str
) -> CompileSpec:
    """What the compile pool takes."""
    signature, constants, attrs = {}, {}, {}
    for name, value in arguments.items():
        if name in kernel.constexprs or value == 1:
            constants[name] = value
        elif isinstance(value, str):
            signature[name], attrs[name] = value, 16
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name] = "i32"
            if value % 16 == 0:
                attrs[name] = 16
    return CompileSpec(
        file=str(kernel.file), function=kernel.name, signature=signature, constexprs=constants,
        attrs=attrs, options=options, target=parse_target(target),
    )  # fmt: skip


def write_table(record: Path, work: Path, table: Path) -> None:
    """Numbers of the record and of the first IR, one row a compilation."""
    import pandas

    devices = {target: lookup(name) for target, name in DEVICES.items()}
    rows = []
    for one in map(json.loads, record.open()):
        if one["status"] != "ok":
            continue
        options = {k: int(one["options"][k]) for k in ("num_warps", "num_stages")}
        arguments = {k: _constant_of(v) for k, v in one["arguments"].items()}
        device = devices[one["target"]]
        try:
            kernel = getattr(_module(work / f"k{one['kernel']}.py"), one["name"])
            told = facts_of(kernel, arguments, grid=(64, 1, 1), device=device, **options)
        except Exception as error:
            print(f"{one['kernel']} is not read: {error}")
            continue
        facts = {k: one["facts"].get(k) for k in ("registers", "spills", "shared_bytes")}
        names = ("package", "kernel", "variant", "target")
        known = {f"ir.{k}": float(f"{v:.5g}") for k, v in told.items()}
        rows.append({**{k: one[k] for k in names}, **facts, "compile_s": one["compile_s"], **known})
    table.parent.mkdir(parents=True, exist_ok=True)
    found = pandas.DataFrame(rows)
    found.to_csv(table, index=False, compression={"method": "gzip", "mtime": 0})
    print(f"{len(found)} rows of {found['kernel'].nunique()} kernels in {table}")
    for fact in ("registers", "shared_bytes"):
        both = found[[fact, f"ir.{fact}"]].dropna() + 1
        factor = np.exp(np.abs(np.log(both[fact] / both[f"ir.{fact}"])))
        by = factor.groupby(found["target"]).median().round(2).to_dict()
        print(
            f"{fact}: median factor {factor.median():.2f}, 90 % quantile {factor.quantile(0.9):.2f}; {by}"
        )


@functools.cache
def _module(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _constant_of(value: Any) -> Any:
    import triton.language as tl

    return getattr(tl, LONG[value["dtype"]]) if isinstance(value, dict) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--table", type=Path, help="write this instead of compiling")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/package_kernels"))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.table:
        return write_table(args.out, args.work, args.table)
    known = {}
    if args.out.exists():
        known = {(r["kernel"], r["variant"], r["target"]) for r in map(json.loads, args.out.open())}
    queues = [
        [k for file in sorted(folder.rglob("*.py")) if "triton" in file.read_text(errors="replace")
         for k in extract(file, args.work)]
        for folder in args.folders
    ]  # fmt: skip
    print([len(q) for q in queues])
    seen: set[str] = set()
    end, good, tried = time.monotonic() + 60 * args.minutes, set(), 0
    depth = max(map(len, queues))
    with (
        CompilePool(
            args.workers, timeout_s=25, niceness=0, cache_dir=str(args.work / "cache")
        ) as pool,
        args.out.open("a") as out,
    ):
        for rank in range(depth):
            for folder, queue in zip(args.folders, queues, strict=True):
                if rank >= len(queue) or queue[rank].digest in seen or time.monotonic() > end:
                    continue
                kernel = queue[rank]
                seen.add(kernel.digest)
                tried += 1
                worked = None
                for attempt in range(4):
                    arguments, options = guess(kernel, 0, attempt)
                    spec = spec_of(kernel, arguments, options, "sm_80")
                    if pool.compile(spec).ok:
                        worked = attempt
                        break
                if worked is None:
                    continue
                good.add(kernel.digest)
                for variant, targets in enumerate(TARGETS):
                    for target in targets:
                        if (kernel.digest, variant, target) in known:
                            continue
                        arguments, options = guess(kernel, variant, worked)
                        result = pool.compile(spec_of(kernel, arguments, options, target))
                        row = {
                            "package": folder.name, "kernel": kernel.digest, "name": kernel.name,
                            "variant": variant, "target": target, "arguments": arguments,
                            "options": options, "status": result.status.value,
                            "facts": dict(result.facts), "compile_s": result.compile_s,
                        }  # fmt: skip
                        out.write(json.dumps(row) + "\n")
                        out.flush()
                if len(good) % 20 == 0:
                    print(f"{len(good)} kernels of {tried} tried", flush=True)
    print(f"{len(good)} kernels of {tried} tried")


if __name__ == "__main__":
    main()
