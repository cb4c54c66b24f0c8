"""What a server takes for a GPU without a file: its rule of thumb, which a measured file has to beat.

As vLLM 0.33 (``get_default_config`` and ``w8a8_triton_block_scaled_mm``) and SGLang 0.5.23
(``fused_moe_triton_config.py``, ``fp8_kernel.py``) have them.
"""

from __future__ import annotations

from autotune_rlm.integrations.serving._file import ServingFile
from autotune_rlm.integrations.serving._spaces import PARAMETERS
from autotune_rlm.types import Candidate, Device


def rule_of_thumb(file: ServingFile, batch: int, device: Device, server: str) -> Candidate:
    """The configuration that a server without a file takes for a batch size."""
    rocm = device.target.startswith("gfx")
    if file.kernel != "fused_moe":
        assert file.block_shape is not None
        stages = 2 if server == "vllm" else 3
        return _config(64, *file.block_shape, 32, 4, stages)
    assert file.E is not None
    if server == "vllm":
        return _vllm_experts(file, batch, rocm)
    stages = 2 if rocm else 4
    few = batch <= file.E
    if file.dtype == "fp8_w8a8" and file.block_shape is not None:
        return _config(64, *file.block_shape, 32, 4, 2 if rocm else 3)
    if file.dtype == "fp8_w8a8":
        return _config(64, 128, 128, 1, 4, stages) if few else _config(128, 256, 128, 32, 8, stages)
    return _config(16, 32, 64, 1, 4, 3) if few else _config(64, 64, 32, 8, 4, 3)


def _vllm_experts(file: ServingFile, batch: int, rocm: bool) -> Candidate:
    if file.dtype == "fp8_w8a8" and file.block_shape is not None:
        block_n, block_k = file.block_shape
        narrow = not rocm and batch <= 8 and block_n % 64 == 0
        stages = 2 if rocm else 4 if narrow and batch <= 4 else 3
        n = 64 if narrow else block_n
        return _config(16 if batch <= 64 else 64, n, block_k, 1 if batch <= 16 else 32, 4, stages)
    m = 16 if batch <= 32 else 32 if batch <= 96 else 64 if batch <= 512 else 128
    k = 128 if file.dtype == "fp8_w8a8" or batch <= 64 else 64
    group = 16 if batch // max(file.E or 1, 1) > 128 else 1
    stages = 2 if rocm else 4 if batch <= 32 else 3
    return _config(m, 64 if batch <= 64 else 128, k, group, 4 if batch <= 128 else 8, stages)


def _config(*values: int) -> Candidate:
    return Candidate(dict(zip(PARAMETERS, values, strict=True)))
