"""The ``CompileSpec`` of a real call: what Triton would compile, without compiling it."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from autotune_rlm._forks import ForkSafeLock, no_fork
from autotune_rlm.devices import Target
from autotune_rlm.measure.errors import classify
from autotune_rlm.types import Status

from ._kernel_source import file_sha256
from ._shipping import pack
from .compile import CompileResult, CompileSpec
from .layers import unwrap, with_heuristics

_driver_lock = ForkSafeLock()


def describe_call(
    kernel: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: Target | None = None,
    max_shared_bytes: int | None = None,
) -> CompileSpec | None:
    """The spec of ``kernel[grid](*args, **kwargs)``, argument specialisation and all.

    Compiling it in a ``CompilePool`` puts the very binary into Triton's cache that the launch will
    look for.

    Args:
        kernel: A ``triton.jit`` function, or an autotuner or heuristics around one (they are not
            run: ``kwargs`` holds what they would add).
        args: Positional arguments: tensors (on any device, ``meta`` too) and scalars; a dtype is
            an aligned tensor of it.
        kwargs: Keyword arguments, the configuration (``num_warps``, ...) among them.
        target: None for the active driver's.
        max_shared_bytes: See ``CompileSpec``.

    Returns:
        None under Triton's interpreter, and where a worker could not make the kernel: it takes or reads
        a constant that is no plain value and is not at the top level of a file. Compile it in this
        process then.

    Raises:
        TypeError: The arguments do not fit the kernel.
    """
    function = unwrap(kernel)
    if not hasattr(function, "cache_key"):
        return None  # interpreted
    python = function.fn
    file = python.__code__.co_filename
    packed = _packed(function, function.cache_key)
    if packed is None and (file.startswith("<") or "<locals>" in python.__qualname__):
        return None
    twin = _twin(function)
    told: dict[str, Any] = {}
    twin._call_hook = functools.partial(_keep_from_compiling, told)
    with no_fork(), _pretend(target) if target else nullcontext():
        twin.warmup(*args, grid=(1,), **dict(kwargs or {}))
        here = _current_target()
    names = list(function.arg_names)
    try:
        options = json.loads(json.dumps(vars(told["options"])))
        constants = {_name(names, path): encode_value(v) for path, v in told["constants"].items()}
        attributes = {_name(names, path): list(v) for path, v in told["configs"][0].items()}
    except TypeError:
        return None
    return CompileSpec(
        file=file,
        function=python.__qualname__,
        module=python.__module__,
        signature={name: kind for name, kind in told["signature"].items() if kind != "constexpr"},
        constexprs=constants,
        attrs=json.loads(json.dumps(attributes)),
        options=options,
        target=target or (here.backend, here.arch, here.warp_size),
        source_key=function.cache_key,
        max_shared_bytes=max_shared_bytes,
        packed=packed,
    )


@functools.lru_cache(maxsize=64)
def _packed(function: Any, cache_key: str) -> dict[str, Any] | None:
    return pack(function, encode_value)


def compile_here(
    kernel: Any, kwargs: Mapping[str, Any], *, target: Target | None = None
) -> CompileResult:
    """Compile a call in this process, where no worker can load the kernel; launches nothing."""
    from ._compile_worker import facts_of, watching_the_cache

    try:
        on = _pretend(target) if target else nullcontext()
        with no_fork(), on, watching_the_cache() as hits:
            begin = time.perf_counter()
            compiled = _twin(unwrap(kernel)).warmup(grid=(1,), **kwargs)
            seconds = time.perf_counter() - begin
        facts = facts_of(compiled)
    except Exception as error:
        fault = classify(error, stage="compile")
        return CompileResult(status=fault.status, reason=fault.reason)
    cached = bool(hits and hits[-1])
    compile_s = None if cached else seconds
    return CompileResult(status=Status.OK, facts=facts, compile_s=compile_s, cached=cached)


def _twin(function: Any) -> Any:
    """The same kernel with nothing compiled yet."""
    twin = copy.copy(function)
    twin.device_caches = defaultdict(twin.create_binder)
    twin.pre_run_hooks = []
    return twin


def _keep_from_compiling(told: dict[str, Any], *args: Any) -> bool:
    """In place of a twin's ``JITFunction._call_hook``, asked before it compiles: says that it did."""
    from triton.runtime.jit import JITFunction

    told.update(inspect.signature(JITFunction._call_hook).bind(None, *args).arguments)
    return True


def after_pre_hook(
    hook: Callable[[dict[str, Any]], Any] | None, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The arguments as a launch finds them once a ``Config.pre_hook`` has run.

    A hook gets a dictionary of its own, so it changes a launch only through what the arguments are made
    of: the block shapes of host descriptors (``TensorDescriptor``). It runs here on copies of them whose
    tensors hold nothing, and nothing live is touched. None where it needs the tensors themselves.
    """
    if hook is None or not any(map(_is_descriptor, arguments.values())):
        return dict(arguments)
    try:
        copies = {name: _stand_in(value) for name, value in arguments.items()}
        hook(dict(copies))
    except Exception:  # what is wrong with it, the launch will say
        return None
    changed = {}
    for name, value in arguments.items():
        if _is_descriptor(value):
            copies[name].base = value.base
            value = copies[name]
        changed[name] = value
    return changed


def compiled_arguments(
    kernel: Any, hook: Callable[[dict[str, Any]], Any] | None, arguments: Mapping[str, Any]
) -> dict[str, Any] | None:
    """All arguments by name as the compiler gets them after ``hook``; None where only launches know."""
    launched = after_pre_hook(hook, arguments)
    if launched is None:
        return None
    given = with_heuristics(kernel, launched)
    return {name: value for name, value in given.items() if name not in ("grid", "warmup")}


def _is_descriptor(value: Any) -> bool:
    return hasattr(value, "block_shape") and hasattr(value, "base")


def _stand_in(value: Any) -> Any:
    if _is_descriptor(value):
        twin = copy.copy(value)
        for name, held in vars(value).items():
            if isinstance(held, list):
                setattr(twin, name, list(held))
        twin.base = _stand_in(value.base)
        return twin
    if hasattr(value, "data_ptr") and hasattr(value, "new_empty"):
        import torch

        return torch.empty_like(value, device="meta")
    return value


def encode_value(value: Any) -> Any:
    """JSON for a constant of a kernel; TypeError where it has none."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple):
        return {"tuple": [encode_value(item) for item in value]}
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if kind == "triton.language.core.dtype":
        return {"dtype": value.name}
    if kind == "triton.language.core.constexpr":
        return {"constexpr": encode_value(value.value)}
    if kind == "triton.runtime.jit.JITFunction" and "<locals>" not in value.fn.__qualname__:
        file = inspect.getsourcefile(value.fn)
        if file and not file.startswith("<"):
            where = {"file": file, "function": value.fn.__qualname__, "module": value.fn.__module__}
            return {"kernel": {**where, "sha256": file_sha256(file)}}
    raise TypeError(f"the constant {value!r} has no JSON form")


def _current_target() -> Any:
    from triton.runtime.driver import driver

    return driver.active.get_current_target()


def _name(names: list[str], path: tuple[int, ...]) -> str:
    if len(path) != 1:
        raise TypeError("tuples of arguments have no JSON form")
    return names[path[0]]


@contextmanager
def _pretend(target: Target) -> Iterator[None]:
    """Makes Triton's driver name ``target``; one thread at a time."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    with _driver_lock:
        state = vars(driver)  # Triton 3.4 keeps the driver in active, later ones in _active
        before = state.get("_active", state.get("active"))
        driver.set_active(_NamedTarget(GPUTarget(*target)))
        try:
            yield
        finally:
            driver.set_active(before)


class _NamedTarget:
    """The part of a Triton driver that binding arguments asks."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def get_current_target(self) -> Any:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int = 0) -> int:
        return 0
