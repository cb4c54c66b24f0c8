"""Runs in a worker: makes the first IRs of one kernel, for many sets of constants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune_rlm.ir import Signature, read_or_reason

from ._compile_worker import decode_value
from ._kernel_source import load_kernel


def read(request: Mapping[str, Any]) -> dict[str, Any]:
    """Texts by key; without any where the file no longer holds the kernel that was meant."""
    kernel = load_kernel(request["file"], request["function"], request["module"])
    if kernel.cache_key != request["source_key"]:
        return {"texts": {}}
    texts = {
        key: read_or_reason(kernel, _signature(told), request["target"])
        for key, told in request["signatures"].items()
    }
    return {"texts": texts}


def signature_to_json(signature: Signature) -> dict[str, Any]:
    """What ``read`` takes; TypeError where a constant has no JSON form."""
    from .capture import encode_value

    constants = [[list(path), encode_value(v)] for path, v in signature.constants.items()]
    divisible = [[list(path), n] for path, n in signature.divisible.items()]
    return {"types": signature.types, "constants": constants, "divisible": divisible}


def setup(init: Mapping[str, Any]) -> None:
    """Import the compiler before the first request."""
    import triton.compiler.code_generator
    import triton.language  # noqa: F401


def _signature(told: Mapping[str, Any]) -> Signature:
    return Signature(
        types={name: _types(kind) for name, kind in told["types"].items()},
        constants={tuple(path): decode_value(value) for path, value in told["constants"]},
        divisible={tuple(path): n for path, n in told["divisible"]},
    )


def _types(kind: Any) -> Any:
    return tuple(_types(item) for item in kind) if isinstance(kind, list) else kind
