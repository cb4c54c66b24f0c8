"""AITER's configuration files: ranges of M in place of batch sizes, an architecture in place of a GPU.

As ``gemm_config_utils.py`` and ``moe_config_utils.py`` in ``aiter/ops/triton/utils`` of ROCm/aiter
(commit e404860) read them: GEMMs by keys such as ``M_LEQ_64``, ``M_GEQ_8192`` and ``any``, for all shapes
or those in the name; mixtures of experts for all shapes by ``small_M`` (below 256), ``medium_M`` (below
1024) and ``large_M``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autotune_rlm import devices
from autotune_rlm._checks import check_path
from autotune_rlm._files import replacing
from autotune_rlm.integrations.serving._file import ServingFile

M_BOUNDS = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
"""Bounds that AITER looks for, ``STANDARD_M_BOUNDS``."""
_NAME = re.compile(
    r"^(?:(?P<arch>gfx\w+|MI\w+)-)?(?P<family>(?:(?:BATCHED_|FUSED-)?GEMM|FF|MOE)-[\w-]+?)"
    r"(?P<sizes>(?:-[A-Z]\w*=\d+)*)\.json$"
)
_RANGE = re.compile(r"^(any|small_M|medium_M|large_M|M_[LG]EQ_\d+)$")
_GEMMS = {"w8a8_block_fp8_matmul": "GEMM-A8W8_BLOCKSCALE"}
_SMALL, _MEDIUM = 256, 1024
# What AITER's kernels take beside the tiles; the values that most of its own files have.
_GEMM_MORE = {
    "waves_per_eu": 1,
    "matrix_instr_nonkdim": 16,
    "cache_modifier": ".cg",
    "NUM_KSPLIT": 1,
}
_MOE_MORE = {"waves_per_eu": 0, "matrix_instr_nonkdim": 16}


@dataclass(frozen=True, kw_only=True)
class AiterFile:
    """A configuration file of AITER.

    Attributes:
        family: As in its name: ``"GEMM-A8W8_BLOCKSCALE"``, ``"MOE-FP8_W8A8"``.
        arch: The architecture, such as ``"gfx950"`` (in old files also ``"MI300X"``).
        sizes: As in its name: ``{"N": 7168, "K": 2048}``; empty for the file of all shapes.
        backend: ``"triton"`` or ``"gluon"``, as in its place.
        configs: Configuration by key: ``"M_LEQ_64"``, ``"any"``, ``"small_M"``.
        extra: Other entries of the file, such as ``_note``; written back as they are.

    Raises:
        ValueError: The names are none of AITER's.
    """

    family: str
    arch: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    backend: str = "triton"
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.match(self.name()):
            raise ValueError(f"{self.arch!r} and {self.family!r} make no name of an AITER file")

    def name(self) -> str:
        """The file's name with the architecture before it."""
        return f"{self.arch}-{self.family}{self._shape}.json"

    @property
    def _shape(self) -> str:
        return "".join(f"-{name}={size}" for name, size in self.sizes.items())

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
            more = {**_MOE_MORE, **({"kpack": 2} if arch == "gfx942" else {})}
            middles = {"small_M": 64, "medium_M": 512, "large_M": 4096}
            found = {key: {**file.config(m), **more} for key, m in middles.items()}
            return cls(family=family, arch=arch, configs=found)
        if file.kernel not in _GEMMS or file.K is None:
            raise ValueError(
                f"AITER has no file for {file.kernel}; it has fused_moe, {', '.join(_GEMMS)}"
            )
        # A range is for the largest M in it, where most time goes.
        found = {
            f"M_LEQ_{m}": {**file.config(m), **_GEMM_MORE} for m in M_BOUNDS if m in file.configs
        }
        found["any"] = {**file.config(M_BOUNDS[-1]), **_GEMM_MORE}
        sizes = {"N": file.N, "K": file.K}
        return cls(family=_GEMMS[file.kernel], arch=arch, sizes=sizes, configs=found)

    @classmethod
    def read(cls, path: str | Path) -> AiterFile:
        """Read a file of either layout; what it is for stands in its name and folders.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Its name or its content is not of this format.
        """
        path = check_path("path", path).absolute()
        name, parts = path.name, path.parts
        if name == "DEFAULT.json":
            name = path.parent.name.upper().replace("_", "-", 1) + ".json"
        found = _NAME.match(name)
        if found is None or (found["arch"] is None and len(parts) < 5):
            raise ValueError(
                f"{path.name!r} is no name of an AITER file that is read here: those of GEMMs and "
                "mixtures of experts by ranges of M are, such as "
                "'gfx950-GEMM-A8W8_BLOCKSCALE-N=7168-K=2048.json'; its CSV tables name compiled "
                "kernels, and other JSON files have keys of their own"
            )
        try:
            content = json.loads(path.read_text("utf-8"))
            configs = {k: dict(v) for k, v in content.items() if _RANGE.match(k)}
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{path}: not a JSON object of configurations: {error}") from None
        sizes = dict(part.split("=") for part in found["sizes"].split("-")[1:])
        return cls(
            family=found["family"],
            arch=found["arch"] or parts[-5],
            sizes={size: int(value) for size, value in sizes.items()},
            backend="gluon" if "gluon" in parts[-4:-1] else "triton",
            configs=configs,
            extra={k: v for k, v in content.items() if k not in configs},
        )

    def path(self, folder: str | Path) -> Path:
        """Where AITER looks for the file below its folder of configurations.

        The folder of an architecture counts only where it has the kernel's ``DEFAULT.json``.
        """
        kind, folder = "moe" if self.family.startswith("MOE") else "gemm", Path(folder)
        own = folder / self.arch / self.backend / kind / self.family.lower().replace("-", "_")
        if kind == "gemm" and (own / "DEFAULT.json").exists():
            return own / (f"{self.family}{self._shape}.json" if self.sizes else "DEFAULT.json")
        return folder / kind / ("gluon" if self.backend == "gluon" else "") / self.name()

    def write(self, folder: str | Path) -> Path:
        """Write the file in one step; returns its path.

        Args:
            folder: ``aiter/ops/triton/configs`` of an installation, or another one.
        """
        path = self.path(folder)
        content = {**self.extra, **{key: dict(config) for key, config in self.configs.items()}}
        with replacing(path) as draft:
            draft.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
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
