"""What an installed server holds: its version, its kernels' text and its configuration files.

Nothing of the server is imported: importing one takes tens of seconds, and a GPU.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
from pathlib import Path

from autotune_rlm._files import replacing

# Where the servers keep their kernels, newest place first; other versions have them elsewhere.
_KERNELS: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("vllm", "fused_moe"): (("model_executor/layers/fused_moe/fused_moe.py", "fused_moe_kernel"),),
    ("vllm", "w8a8_block_fp8_matmul"): (
        ("model_executor/layers/quantization/utils/fp8_utils.py", "_w8a8_triton_block_scaled_mm"),
        ("model_executor/layers/quantization/utils/fp8_utils.py", "_w8a8_block_fp8_matmul"),
    ),
    ("vllm", "w8a8_block_int8_matmul"): (
        ("model_executor/layers/quantization/utils/int8_utils.py", "_w8a8_block_int8_matmul"),
    ),
    ("sglang", "fused_moe"): (
        ("kernels/ops/moe/fused_moe_triton_kernels.py", "fused_moe_kernel"),
        ("srt/layers/moe/fused_moe_triton/fused_moe_triton_kernels.py", "fused_moe_kernel"),
        ("srt/layers/moe/fused_moe_triton/fused_moe.py", "fused_moe_kernel"),
    ),
    ("sglang", "w8a8_block_fp8_matmul"): (
        ("kernels/ops/gemm/fp8_kernel.py", "_w8a8_block_fp8_matmul"),
        ("srt/layers/quantization/fp8_kernel.py", "_w8a8_block_fp8_matmul"),
    ),
    ("sglang", "w8a8_block_int8_matmul"): (
        ("kernels/ops/gemm/int8_kernel.py", "_w8a8_block_int8_matmul"),
        ("srt/layers/quantization/int8_kernel.py", "_w8a8_block_int8_matmul"),
    ),
}
_HEADER = "import triton\nimport triton.language as tl\n"


def package_folder(server: str) -> Path | None:
    """The folder of an installed server; None where there is none."""
    found = importlib.util.find_spec(server)
    places = list(found.submodule_search_locations or ()) if found is not None else []
    return Path(places[0]) if places else None


def version_of(server: str) -> str:
    """The installed version; empty where its metadata is missing."""
    try:
        return importlib.metadata.version(server)
    except importlib.metadata.PackageNotFoundError:
        return ""


def kernel_file(server: str, kernel: str) -> tuple[Path, str]:
    """A file with an installed server's kernel and what it needs of its file, and the kernel's name.

    The ``@triton.jit`` functions are copied, text unchanged, into the user's cache folder: their own
    file imports the server.

    Raises:
        ModuleNotFoundError: The server is not installed.
        LookupError: Its version has no such kernel where it is looked for.
    """
    folder = package_folder(server)
    if folder is None:
        raise ModuleNotFoundError(
            f"{server} is not installed here, and its kernel is what is measured; install it, or "
            "predict the file: autotune-rlm serve-configs predict"
        )
    for place, name in _KERNELS.get((server, kernel), ()):
        path = folder / place
        if path.is_file():
            text = path.read_text("utf-8")
            functions = _with_helpers(text, name)
            if functions:
                return _written("\n\n\n".join([_HEADER, *functions]) + "\n", server), name
    raise LookupError(
        f"{server} {version_of(server)} has no Triton kernel {kernel} where it is looked for: "
        + (", ".join(str(folder / place) for place, _ in _KERNELS.get((server, kernel), ())) or "-")
    )


def config_folders(server: str) -> list[Path]:
    """The folders of configuration files that an installed server ships, and those that are set."""
    named = {"vllm": "VLLM_TUNED_CONFIG_FOLDER", "sglang": "SGLANG_MOE_CONFIG_DIR"}.get(server, "")
    roots = [Path(os.environ[named])] if os.environ.get(named) else []
    folder = package_folder(server)
    if folder is not None:
        roots.append(folder)
    files = (path for root in roots for path in root.rglob("*device_name=*.json"))
    return list(dict.fromkeys(path.parent for path in files))


def _with_helpers(text: str, name: str) -> list[str]:
    """The source of a jitted function and of those that it calls, in their order."""
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    jitted = {
        node.name: node
        for node in functions
        if any(ast.unparse(one).startswith("triton.jit") for one in node.decorator_list)
    }
    new, seen = {name} & jitted.keys(), set[str]()
    while new:
        seen |= new
        nodes = (node for called in new for node in ast.walk(jitted[called]))
        new = ({node.id for node in nodes if isinstance(node, ast.Name)} & jitted.keys()) - seen
    lines = text.splitlines()
    return [
        "\n".join(["@triton.jit", *lines[node.lineno - 1 : node.end_lineno]])
        for node in jitted.values()
        if node.name in seen
    ]


def _written(text: str, server: str) -> Path:
    import platformdirs

    folder = platformdirs.user_cache_path("autotune_rlm") / "serving"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{server}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.py"
    if not path.exists():
        with replacing(path) as draft:
            draft.write_text(text, "utf-8")
    return path
