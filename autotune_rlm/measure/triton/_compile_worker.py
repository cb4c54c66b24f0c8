"""Runs in a compile worker: turns the JSON of a ``CompileSpec`` into facts about its binary."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from autotune_rlm.measure.errors import classify, one_line
from autotune_rlm.types import Status

from ._binary import binary_facts
from ._kernel_source import load_kernel

_TENSOR_MEMORY_COLUMNS = 512


def compile_spec(request: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON of a ``CompileResult`` for the JSON of a ``CompileSpec``."""
    try:
        kernel = _kernel(request)
        own = kernel.cache_key
        constexprs = {name: decode_value(value) for name, value in request["constexprs"].items()}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: the file may parse a command line
        reason = one_line(f"a compile worker cannot load it: {type(error).__name__}: {error}")
        return {"status": Status.SKIPPED.value, "reason": reason}
    if request.get("source_key") and own != request["source_key"]:
        reason = f"{request['file']} is not what the running program imported"
        return {"status": Status.SKIPPED.value, "reason": reason}
    try:
        return _compile(request, kernel, constexprs)
    except Exception as error:
        fault = classify(error, stage="compile")
        return {"status": fault.status.value, "reason": fault.reason}


def _kernel(request: Mapping[str, Any]) -> Any:
    """The kernel as it was sent, else as its file has it."""
    if request.get("packed"):
        from ._shipping import unpack

        try:
            kernel = unpack(request["packed"])
            if kernel.cache_key == request["source_key"]:
                return kernel
        except Exception:  # what it needs is in the file alone
            pass
    return load_kernel(request["file"], request["function"], request.get("module", ""))


def _compile(spec: Mapping[str, Any], kernel: Any, constexprs: dict[str, Any]) -> dict[str, Any]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(kernel.arg_names)
    signature = {name: spec["signature"].get(name, "constexpr") for name in names}
    attributes = {
        (names.index(name),): [["tt.divisibility", value]] if isinstance(value, int) else value
        for name, value in spec["attrs"].items()
    }
    missing = [n for n in names if signature[n] == "constexpr" and n not in constexprs]
    if missing:
        raise ValueError(f"signature or constexprs must name the arguments {missing}")
    source = ASTSource(kernel, signature, constexprs, attributes)
    options = {name: _deep_tuple(value) for name, value in spec["options"].items()}
    with watching_the_cache() as hits:
        start = time.perf_counter()
        compiled = triton.compile(source, target=GPUTarget(*spec["target"]), options=options)
        seconds = time.perf_counter() - start
    cached = bool(hits and hits[-1])
    facts = facts_of(compiled)
    result = {"facts": facts, "cached": cached, "compile_s": None if cached else seconds}
    limit = spec.get("max_shared_bytes")
    if limit is not None and facts["shared_bytes"] > limit:
        reason = f"shared memory: {facts['shared_bytes']} bytes of at most {limit}"
        return {**result, "status": Status.OUT_OF_RESOURCES.value, "reason": reason}
    if facts.get("tensor_memory_columns", 0) > _TENSOR_MEMORY_COLUMNS:
        reason = f"tensor memory: {facts['tensor_memory_columns']} columns of at most 512"
        return {**result, "status": Status.OUT_OF_RESOURCES.value, "reason": reason}
    return {**result, "status": Status.OK.value, "reason": ""}


def facts_of(compiled: Any) -> dict[str, Any]:
    """The facts of a ``triton.compiler.CompiledKernel``, without a device."""
    metadata = compiled.metadata
    facts: dict[str, Any] = {"shared_bytes": int(metadata.shared)}
    for fact, field in (
        ("tensor_memory_columns", "tmem_size"),
        ("scratch_bytes", "global_scratch_size"),
    ):
        if getattr(metadata, field, None):
            facts[fact] = int(getattr(metadata, field))
    return {**facts, **binary_facts(compiled.kernel, assembly=compiled.asm.get("amdgcn", ""))}


def decode_value(value: Any) -> Any:
    """The constant that a JSON value stands for; the inverse of ``compile.encode_value``."""
    if not isinstance(value, Mapping):
        return value
    if "dtype" in value:
        import triton.language as tl

        return tl.dtype(value["dtype"])
    if "constexpr" in value:
        import triton.language as tl

        return tl.constexpr(decode_value(value["constexpr"]))
    if "float" in value:
        return float(value["float"])
    if "tuple" in value:
        return tuple(decode_value(item) for item in value["tuple"])
    if "kernel" in value:
        return load_kernel(**value["kernel"])
    raise ValueError(f"cannot decode the constant {value!r}")


@contextlib.contextmanager
def watching_the_cache() -> Iterator[list[bool]]:
    """Collects whether each compilation was answered by Triton's cache."""
    import triton

    hits: list[bool] = []
    knobs = triton.knobs.compilation
    before = knobs.listener
    knobs.listener = lambda **told: hits.append(bool(told.get("cache_hit")))
    try:
        yield hits
    finally:
        knobs.listener = before


def _deep_tuple(value: Any) -> Any:
    return tuple(_deep_tuple(item) for item in value) if isinstance(value, list) else value


def setup(init: Mapping[str, Any]) -> None:
    """Import the compiler before the first request, so that no compilation is charged for it.

    No kernel is launched here, whatever a file does that defines one.
    """
    import triton.compiler.code_generator
    import triton.language  # noqa: F401
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    Autotuner.run = JITFunction.run = _launches_nothing


def _launches_nothing(self: Any, *args: Any, **kwargs: Any) -> Any:
    raise RuntimeError(f"a compile worker launches nothing, {self!r} neither")
