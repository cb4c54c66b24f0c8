"""AITER's configuration files: ranges of M in place of batch sizes, an architecture in place of a GPU.

As ``aiter/ops/triton/utils`` reads them in ROCm/aiter: ``GEMM-A8W8_BLOCKSCALE`` for each N and K with
the keys ``M_LEQ_64``, ``M_GEQ_8192`` and ``any``; ``MOE-FP8_W8A8`` for all shapes with ``small_M`` (below
256), ``medium_M`` (below 1024) and ``large_M``. Newer versions have a folder for each architecture,
older ones write it before the name; both are read and written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune_rlm import devices
from autotune_rlm.integrations.serving._file import ServingFile

__all__ = ["M_BOUNDS", "AiterFile"]

M_BOUNDS = (4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Bounds that AITER looks for, ``STANDARD_M_BOUNDS``."""
_NAME = re.compile(
    r"^(?:(?P<arch>[A-Za-z0-9]+)-)?(?P<family>(?:BATCHED_)?GEMM-[A-Z0-9_]+|MOE-[A-Z0-9_]+)"
    r"(?:-N=(?P<N>\d+)-K=(?P<K>\d+))?\.json$"
)
_GEMMS = {"w8a8_block_fp8_matmul": "GEMM-A8W8_BLOCKSCALE"}
_SMALL, _MEDIUM = 256, 1024
# What AITER's kernels take beside the tiles; the values that most of its own files have.
_GEMM_MORE = {
    "waves_per_eu": 2,
    "matrix_instr_nonkdim": 16,
    "cache_modifier": None,
    "NUM_KSPLIT": 1,
}
_MOE_MORE = {"waves_per_eu": 0, "matrix_instr_nonkdim": 16, "kpack": 2}


@dataclass(frozen=True, kw_only=True)
class AiterFile:
    """A configuration file of AITER.

    Attributes:
        family: As in its name: ``"GEMM-A8W8_BLOCKSCALE"``, ``"MOE-FP8_W8A8"``.
        arch: The architecture, such as ``"gfx950"`` (in old files also ``"MI300X"``).
        N: Columns of the weight; None for the file of all shapes.
        K: Rows of the weight.
        configs: Configuration by key: ``"M_LEQ_64"``, ``"any"``, ``"small_M"``.

    Raises:
        ValueError: Only one of N and K is given, or the names are none.
    """

    family: str
    arch: str
    N: int | None = None
    K: int | None = None
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.N is None) != (self.K is None):
            raise ValueError(f"N and K belong together, got N={self.N} and K={self.K}")
        if not _NAME.match(self.name()):
            raise ValueError(f"{self.arch!r} and {self.family!r} make no name of an AITER file")

    def name(self) -> str:
        """The file's name with the architecture before it."""
        shape = "" if self.N is None else f"-N={self.N}-K={self.K}"
        return f"{self.arch}-{self.family}{shape}.json"

    @classmethod
    def of(cls, file: ServingFile) -> AiterFile:
        """The file for what a ``ServingFile`` was predicted or measured for.

        Raises:
            ValueError: AITER has no such kernel, the GPU is none of AMD's, or there are no entries.
        """
        arch = devices.lookup(file.device_name).target
        if not arch.startswith("gfx"):
            raise ValueError(f"AITER runs on GPUs of AMD, not on {file.device_name!r}")
        if file.kernel == "fused_moe":
            family = f"MOE-{(file.dtype or 'DEFAULT').upper()}"
            middles = {"small_M": 64, "medium_M": 512, "large_M": 4096}
            found = {key: {**file.config(m), **_MOE_MORE} for key, m in middles.items()}
            return cls(family=family, arch=arch, configs=found)
        if file.kernel not in _GEMMS:
            raise ValueError(
                f"AITER has no file for {file.kernel}; it has fused_moe, {', '.join(_GEMMS)}"
            )
        # A range is for the largest M in it, where most time goes.
        found = {
            f"M_LEQ_{m}": {**file.config(m), **_GEMM_MORE} for m in M_BOUNDS if m in file.configs
        }
        found["any"] = {**file.config(M_BOUNDS[-1]), **_GEMM_MORE}
        return cls(family=_GEMMS[file.kernel], arch=arch, N=file.N, K=file.K, configs=found)

    @classmethod
    def read(cls, path: str | Path) -> AiterFile:
        """Read a file of either layout; what it is for stands in its name and folders.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Its name or its content is not of this format.
        """
        path = Path(path).absolute()
        name = path.name
        family, parts = path.parent.name.upper().replace("_", "-", 1), path.parts
        if name == "DEFAULT.json":
            name = f"{family}.json"
        found = _NAME.match(name)
        if found is None or (found["arch"] is None and len(parts) < 5):
            raise ValueError(
                f"{path.name!r} is no name of an AITER file: it must be as in "
                "'gfx950-GEMM-A8W8_BLOCKSCALE-N=7168-K=2048.json'"
            )
        try:
            content = json.loads(path.read_text("utf-8"))
            configs = {str(key): dict(value) for key, value in content.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{path}: not a JSON object of configurations: {error}") from None
        return cls(
            family=found["family"],
            arch=found["arch"] or parts[-5],
            N=int(found["N"]) if found["N"] else None,
            K=int(found["K"]) if found["K"] else None,
            configs=configs,
        )

    def path(self, folder: str | Path, *, nested: bool = True) -> Path:
        """Where ``write`` writes the file below AITER's folder of configurations."""
        if not nested:
            return Path(folder) / ("moe" if self.family.startswith("MOE") else "gemm") / self.name()
        kind = "moe" if self.family.startswith("MOE") else "gemm"
        own = Path(folder) / self.arch / "triton" / kind / self.family.lower().replace("-", "_")
        name = "DEFAULT.json" if self.N is None else f"{self.family}-N={self.N}-K={self.K}.json"
        return own / name

    def write(self, folder: str | Path, *, nested: bool = True) -> Path:
        """Write the file in one step; returns its path.

        Args:
            folder: ``aiter/ops/triton/configs`` of an installation, or another one.
            nested: Whether each architecture has a folder, as in newer versions.
        """
        path = self.path(folder, nested=nested)
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        content = {key: dict(config) for key, config in self.configs.items()}
        scratch.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        scratch.replace(path)
        return path

    def config(self, m: int) -> Mapping[str, Any]:
        """What AITER takes for M rows or tokens.

        Raises:
            ValueError: No entry is for it.
        """
        if self.family.startswith("MOE"):
            keys = ["small_M" if m < _SMALL else "medium_M" if m < _MEDIUM else "large_M"]
        else:
            keys = [f"M_LEQ_{bound}" for bound in M_BOUNDS if m <= bound]
            keys += [f"M_GEQ_{bound}" for bound in reversed(M_BOUNDS) if m >= bound]
            keys.append("any")
        for key in keys:
            if key in self.configs:
                return self.configs[key]
        raise ValueError(f"{self.name()} has no entry for M={m}")
