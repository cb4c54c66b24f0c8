"""The servers' own code, where their packages are: nothing of them is imported, and no GPU is needed."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

# `scripts/setup.sh` puts their wheels here, without what they depend on.
_WHEELS = Path(sys.prefix) / "servers"
if _WHEELS.is_dir() and str(_WHEELS) not in sys.path:
    sys.path.append(str(_WHEELS))

_LOADERS = {
    ("vllm", "fused_moe"): "model_executor/layers/fused_moe/fused_moe.py",
    ("vllm", "w8a8_block_fp8_matmul"): "model_executor/layers/quantization/utils/fp8_utils.py",
    (
        "sglang",
        "fused_moe",
    ): "srt/layers/moe/moe_runner/triton_utils/fused_moe_triton_config.py",
    ("sglang", "w8a8_block_fp8_matmul"): "kernels/ops/gemm/fp8_kernel.py",
    ("sglang", "w8a8_block_int8_matmul"): "kernels/ops/gemm/int8_kernel.py",
}
_FUNCTIONS = {
    "get_config_file_name",
    "get_moe_configs",
    "get_w8a8_block_fp8_configs",
    "get_w8a8_block_int8_configs",
}


def server_folder(server):
    """The installed package's folder; skips where there is none."""
    if importlib.util.find_spec(server) is None:
        pytest.skip(f"{server} is not installed; scripts/setup.sh says how")
    return Path(importlib.util.find_spec(server).submodule_search_locations[0])


def loader(server, kernel, device_name, here):
    """The functions with which a server looks for a file, of its own text, on a GPU of this name.

    Args:
        here: What stands for the folder of the server's module, below which it looks.
    """
    path = server_folder(server) / _LOADERS[server, kernel]
    tree = ast.parse(path.read_text("utf-8"))
    wanted = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in _FUNCTIONS]
    import torch
    import triton

    log = logging.getLogger("server")
    for name in ("info_once", "warning_once"):
        setattr(log, name, lambda *args, **kwargs: None)
    file_name = device_name.replace(" ", "_")
    names = {
        "functools": functools,
        "json": json,
        "os": os,
        "torch": torch,
        "triton": triton,
        "logger": log,
        "log_info_on_rank0": lambda *args: None,
        "envs": SimpleNamespace(
            VLLM_BATCH_INVARIANT=False,
            VLLM_TUNED_CONFIG_FOLDER=os.environ.get("VLLM_TUNED_CONFIG_FOLDER"),
        ),
        "get_exec": lambda: SimpleNamespace(
            deterministic=SimpleNamespace(enable_deterministic_inference=False)
        ),
        "get_device_name_as_file_name": lambda: file_name,
        "get_device_name": lambda: device_name,
        "_is_cuda": True,
        "__file__": str(Path(here) / "module.py"),
    }
    module = ast.Module(body=[_future(), *wanted], type_ignores=[])
    exec(compile(ast.fix_missing_locations(module), str(path), "exec"), names)
    return SimpleNamespace(**{name: names[name] for name in _FUNCTIONS & names.keys()})


def _future():
    return ast.ImportFrom(module="__future__", names=[ast.alias(name="annotations")], level=0)
