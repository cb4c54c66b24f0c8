"""One configuration file: what it is for, by its name, and what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autotune_rlm._checks import check_path
from autotune_rlm._files import replacing
from autotune_rlm._private import lock_folder
from autotune_rlm.types import Device, Task, digest

KERNELS = ("fused_moe", "w8a8_block_fp8_matmul", "w8a8_block_int8_matmul")
SERVERS = ("vllm", "sglang")
# vLLM writes block_shape=[128,128], SGLang block_shape=[128, 128]; each reads its own only.
_NAME = re.compile(
    r"^(?:E=(?P<E>\d+),)?N=(?P<N>\d+)(?:,K=(?P<K>\d+))?,device_name=(?P<device>[^,]+?)"
    r"(?:,dtype=(?P<dtype>\w+?))?(?:,block_shape=(?P<block>\[\d+, ?\d+\]))?"
    r"(?P<channel>,per_channel_quant=True)?(?P<down>_down)?\.json$"
)
MOE_DTYPES = ("fp8_w8a8", "fp8_w8a16", "int8_w8a8", "int8_w8a16", "int4_w4a16", "float32")
"""What the servers write into the name of a file of ``fused_moe``; nothing for 16 bits."""
_DTYPES = {"w8a8_block_fp8_matmul": "fp8_w8a8", "w8a8_block_int8_matmul": "int8_w8a8"}


@dataclass(frozen=True, kw_only=True)
class ServingFile:
    """A configuration file of vLLM or SGLang.

    Attributes:
        kernel: ``"fused_moe"``, ``"w8a8_block_fp8_matmul"`` or ``"w8a8_block_int8_matmul"``.
        device_name: The GPU as its driver names it, such as ``"NVIDIA H200"``.
        N: Of ``fused_moe`` the intermediate size on this GPU, else columns of the weight.
        K: Rows of the weight; None for ``fused_moe``.
        E: Experts on this GPU; None for the block products.
        dtype: Quantisation as in the file's name, such as ``"fp8_w8a8"``; None for 16 bits.
        block_shape: Rows and columns that share a scale; None where there are none.
        per_channel_quant: Whether each channel has a scale.
        down: Whether the file is for the second product of the experts alone (SGLang).
        hidden_size: Of the model, for ``fused_moe``; no part of the name. None for that of known
            models with as many experts.
        top_k: Experts of each token, for ``fused_moe``; as ``hidden_size``.
        configs: Configuration by batch size (tokens).
        extra: Other entries of the file, such as ``triton_version``; written back where vLLM reads them.

    Raises:
        ValueError: A size is missing or out of range, or the kernel is not known.
    """

    kernel: str
    device_name: str
    N: int
    K: int | None = None
    E: int | None = None
    dtype: str | None = None
    block_shape: tuple[int, int] | None = None
    per_channel_quant: bool = False
    down: bool = False
    hidden_size: int | None = None
    top_k: int | None = None
    configs: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kernel not in KERNELS:
            raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {self.kernel!r}")
        needed = ("E", "N") if self.kernel == "fused_moe" else ("N", "K")
        given = tuple(n for n in ("hidden_size", "top_k") if getattr(self, n) is not None)
        for name in needed + given:
            size = getattr(self, name)
            if not isinstance(size, int) or size < 1:
                raise ValueError(
                    f"{self.kernel} needs {name} as a number of at least 1, got {size!r}"
                )
        if self.kernel == "fused_moe" and (self.top_k or 1) > (self.E or 1):
            raise ValueError(f"top_k must be at most E={self.E}, got {self.top_k}")
        if not self.device_name or "," in self.device_name:
            raise ValueError(f"device_name must be a GPU's name, got {self.device_name!r}")
        if self.kernel in _DTYPES:
            if self.dtype not in (None, _DTYPES[self.kernel]):
                raise ValueError(
                    f"dtype of {self.kernel} is {_DTYPES[self.kernel]}, got {self.dtype!r}"
                )
            object.__setattr__(self, "dtype", _DTYPES[self.kernel])
            object.__setattr__(self, "block_shape", self.block_shape or (128, 128))

    def name(self, server: str = "vllm") -> str:
        """The file's name as the server looks for it.

        Raises:
            ValueError: There is no such server.
        """
        if server not in SERVERS:
            raise ValueError(f"server must be one of {', '.join(SERVERS)}, got {server!r}")
        sizes = [f"{n}={getattr(self, n)}" for n in ("E", "N", "K") if getattr(self, n) is not None]
        device = re.sub(r"[\s/]+", "_", self.device_name)
        if server == "vllm" and self.kernel == "fused_moe" and "H200" in device.split("_"):
            device = "NVIDIA_H200"  # vLLM has one file for all of them
        parts = [*sizes, f"device_name={device}"]
        if self.dtype:
            parts.append(f"dtype={self.dtype}")
        if self.block_shape:
            comma = "," if server == "vllm" else ", "
            parts.append(f"block_shape=[{comma.join(map(str, self.block_shape))}]")
        if server == "vllm":  # has one file for all scales, and for both products
            return ",".join(parts) + ".json"
        if self.per_channel_quant:
            parts.append("per_channel_quant=True")
        return ",".join(parts) + ("_down" if self.down else "") + ".json"

    @classmethod
    def read(cls, path: str | Path) -> ServingFile:
        """Read a file; what it is for stands in its name.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Its name or its content is not of this format.
        """
        path = check_path("path", path)
        found = _NAME.match(path.name)
        if found is None:
            raise ValueError(
                f"{path.name or str(path)!r} is no name of such a file: it must be as in "
                "'E=8,N=14336,device_name=NVIDIA_H200,dtype=fp8_w8a8.json' or "
                "'N=7168,K=2048,device_name=NVIDIA_H200,dtype=fp8_w8a8,block_shape=[128,128].json'"
            )
        if found["E"]:
            kernel = "fused_moe"
        else:
            kernels = {dtype: kernel for kernel, dtype in _DTYPES.items()}
            if found["dtype"] not in kernels or found["block"] is None:
                raise ValueError(f"{path.name!r} is of another kernel than {', '.join(KERNELS)}")
            kernel = kernels[found["dtype"]]
        try:
            content = json.loads(path.read_text("utf-8"))
            if not isinstance(content, dict):
                raise TypeError(f"it is a {type(content).__name__}")
            sizes = {key: value for key, value in content.items() if key.isdigit()}
            configs = {int(key): _config(value) for key, value in sizes.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise ValueError(f"{path}: not a JSON object of batch sizes: {error}") from None
        return cls(
            kernel=kernel,
            device_name=found["device"].replace("_", " "),
            **{name: int(found[name]) for name in "ENK" if found[name]},
            dtype=found["dtype"],
            block_shape=tuple(json.loads(found["block"])) if found["block"] else None,
            per_channel_quant=bool(found["channel"]),
            down=bool(found["down"]),
            configs=dict(sorted(configs.items())),
            extra={key: value for key, value in content.items() if key not in sizes},
        )

    def write(self, folder: str | Path, *, server: str = "vllm") -> Path:
        """Write the file under its name where a server looks for it; returns its path.

        Args:
            folder: What ``VLLM_TUNED_CONFIG_FOLDER`` or ``SGLANG_MOE_CONFIG_DIR`` names. SGLang looks
                for ``fused_moe`` below it, in ``configs/triton_3_9_0`` for Triton 3.9.0.
            server: ``"vllm"`` or ``"sglang"``.
        """
        path = self.path(folder, server=server)
        # Every other loader takes each key for a batch size.
        extra = self.extra if (server, self.kernel) == ("vllm", "fused_moe") else {}
        content = {**extra, **{str(size): dict(c) for size, c in self.configs.items()}}
        with replacing(path) as draft:
            draft.write_text(json.dumps(content, indent=4) + "\n", "utf-8")
        return path

    def add(
        self, configs: Mapping[int, Mapping[str, Any]], folder: str | Path, *, server: str = "vllm"
    ) -> Path:
        """Write entries into the file; what it has by then of other batch sizes stays.

        Args:
            configs: Configuration by batch size.
            folder: As for ``write``.
            server: As for ``write``.
        """
        from filelock import FileLock

        path = self.path(folder, server=server)
        name = digest(str(path.absolute()))[:16]
        with FileLock(str(lock_folder() / f"{name}.lock"), mode=0o600):
            now = ServingFile.read(path) if path.exists() else self
            whole = replace(self.with_configs({**now.configs, **configs}), extra=now.extra)
            return whole.write(folder, server=server)

    def path(self, folder: str | Path, *, server: str = "vllm") -> Path:
        """Where ``write`` writes the file; see there."""
        folder = Path(folder)
        if server == "sglang" and self.kernel == "fused_moe":
            import triton

            folder = folder / "configs" / f"triton_{triton.__version__.replace('.', '_')}"
        return folder / self.name(server)

    def with_configs(self, configs: Mapping[int, Mapping[str, Any]]) -> ServingFile:
        """The same file with other configurations."""
        return replace(self, configs=dict(sorted(configs.items())))

    def config(self, batch: int) -> Mapping[str, Any]:
        """What a server takes for a batch size: the entry of the nearest size.

        Raises:
            ValueError: The file is empty.
        """
        if not self.configs:
            raise ValueError(f"{self.name()} has no configurations")
        return self.configs[min(self.configs, key=lambda size: abs(size - batch))]

    def task(self, batch: int, device: Device) -> Task:
        """What is tuned for a batch size."""
        same = ("N", "K", "E", "hidden_size", "top_k", "dtype", "per_channel_quant")
        whole = {
            "M": batch,
            **{name: getattr(self, name) for name in same},
            "block_shape": list(self.block_shape or ()),
            "gemm": "down" if self.down else "",
        }
        problem = {name: value for name, value in whole.items() if value}
        return Task(kernel=self.kernel, language="triton", problem=problem, device=device)


def _config(value: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it is read: numbers, words and truth values, tiles being numbers."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r} is no configuration")
    for name, item in value.items():
        tile = name.startswith(("BLOCK_", "GROUP_", "num_"))
        if not isinstance(item, (int, str, bool, type(None))) or (tile and type(item) is not int):
            raise TypeError(f"{name} is {item!r}")
    return dict(value)
