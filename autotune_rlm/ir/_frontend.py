"""A kernel's first IR (TTIR): Triton's front end alone, without a GPU, LLVM or ptxas."""

from __future__ import annotations

import atexit
import gc
import inspect
from typing import Any

from autotune_rlm._forks import ForkSafeLock
from autotune_rlm.devices import parse_target

from ._signature import NotRead, Refused, Signature

DEFAULT_TARGET = "sm_90"
"""What the front end is told that it compiles for, where no device is named."""
_lock = ForkSafeLock()  # Triton's front end keeps state in its modules
_backends: dict[str, tuple[Any, Any]] = {}
_contexts: dict[str, tuple[Any, int]] = {}
_MODULES = 64  # made in one context, which never forgets
atexit.register(_contexts.clear)  # Triton's bindings complain of what lives longer than they do


def first_ir(kernel: Any, signature: Signature, target: str = DEFAULT_TARGET) -> str:
    """The text of the kernel's TTIR, calls inlined, after the passes that clean it up.

    It depends neither on ``num_warps`` nor on ``num_stages``.

    Args:
        kernel: A ``@triton.jit`` function.
        signature: Types, constants and alignment of its arguments.
        target: What it would be compiled for.

    Raises:
        Refused: The front end does not take the kernel.
        NotRead: It is a Gluon kernel, whose IR is another one.
    """
    if getattr(kernel, "is_gluon", lambda: False)():
        raise NotRead("a Gluon kernel: its first IR holds layouts that are not read")
    with _lock:
        collecting = gc.isenabled()
        gc.disable()  # the front end makes many small objects; a collection costs a fifth more
        try:
            return _text(kernel, signature, target)
        except NotRead:
            raise
        except Exception as error:
            cause = error.__cause__ or error
            lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
            reason = lines[-1] if lines else type(cause).__name__
            raise Refused(
                f"Triton's front end refuses it: {type(cause).__name__}: {reason}"
            ) from error
        finally:
            if collecting:
                gc.enable()


def _text(kernel: Any, signature: Signature, target: str) -> str:
    from triton._C.libtriton import ir, passes
    from triton.compiler import ASTSource

    backend, options = _backend(target)
    divisible = {path: [["tt.divisibility", n]] for path, n in signature.divisible.items()}
    source = ASTSource(kernel, dict(signature.types), dict(signature.constants), divisible)
    context = _context(target, backend)
    given = {
        "target": backend.target,
        "options": options,
        "codegen_fns": backend.get_codegen_implementation(options),
        "module_map": backend.get_module_map(),
        "context": context,
    }
    wanted = inspect.signature(source.make_ir).parameters  # Triton 3.4 asks for no target
    module = source.make_ir(**{name: given[name] for name in wanted})
    manager = ir.pass_manager(module.context)
    passes.common.add_inliner(manager)
    passes.common.add_canonicalizer(manager)
    passes.common.add_cse(manager)
    passes.common.add_symbol_dce(manager)
    try:
        manager.run(module, "facts")
    except TypeError:  # Triton 3.4: passes have no name
        manager.run(module)
    return str(module.str_nodebug())


def _context(target: str, backend: Any) -> Any:
    """MLIR's context, in which types and constants are kept: one for many modules, then a new one."""
    from triton._C.libtriton import ir

    context, used = _contexts.get(target, (None, _MODULES))
    if used >= _MODULES:
        context, used = ir.context(), 0
        ir.load_dialects(context)
        backend.load_dialects(context)
    _contexts[target] = (context, used + 1)
    return context


def _backend(target: str) -> tuple[Any, Any]:
    if target not in _backends:
        from triton.backends.compiler import GPUTarget
        from triton.compiler.compiler import make_backend

        backend = make_backend(GPUTarget(*parse_target(target)))
        _backends[target] = (backend, backend.parse_options({}))
    return _backends[target]
