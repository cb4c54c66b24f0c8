"""The file to go by where a GPU has none for a shape: that of the nearest shape and GPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune_rlm import devices
from autotune_rlm.integrations.serving._file import ServingFile
from autotune_rlm.integrations.serving._installed import config_folders
from autotune_rlm.store import problem_distance

_log = logging.getLogger(__name__)
# What drivers call the devices that the servers have files of, where the name alone does not say it.
_DRIVER_NAMES = {
    "NVIDIA A100 80GB": "NVIDIA A100-SXM4-80GB",
    "NVIDIA A100": "NVIDIA A100-SXM4-40GB",
    "NVIDIA A800": "NVIDIA A800-SXM4-80GB",
    "NVIDIA H100": "NVIDIA H100 80GB HBM3",
    "NVIDIA B300": "NVIDIA B300 SXM6 AC",
    "NVIDIA RTX 4090": "NVIDIA GeForce RTX 4090",
    "NVIDIA RTX PRO 6000 Blackwell": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q": "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
    "AMD MI300X": "AMD Instinct MI300X",
    "AMD MI308X": "AMD Instinct MI308X",
    "AMD MI325X": "AMD Instinct MI325X",
    "AMD MI350X": "AMD Instinct MI350X",
    "AMD MI355X": "AMD Instinct MI355X",
}


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """A file of another GPU or shape; ``reason`` says in words of which."""

    file: ServingFile
    path: Path
    reason: str


def nearest(
    file: ServingFile, *, server: str = "vllm", folders: Sequence[str | Path] | None = None
) -> Nearest | None:
    """The file of the same kernel and dtype whose shape, then GPU, is nearest; None where there is none.

    A shape counts in powers of two: twice the columns is a distance of 1. A GPU counts by its
    architecture and its figures (``devices.distance``).

    Args:
        file: What is wanted; a file of its own name counts as any other.
        server: Whose folders are looked through.
        folders: Folders of files; None for those of the installed server and those that are set.
    """
    places = config_folders(server) if folders is None else [Path(folder) for folder in folders]
    wanted = devices.lookup(file.device_name)
    ranked = []
    for path in (path for place in places for path in sorted(place.glob("*.json"))):
        try:
            other = ServingFile.read(path)
        except ValueError:
            continue  # a file of something else
        alike = other.kernel == file.kernel and other.down == file.down and other.configs
        if alike and _kind(other) == _kind(file):
            gap = problem_distance(_sizes(file), _sizes(other))
            apart = devices.distance(wanted, devices.lookup(other.device_name))
            ranked.append(((gap + apart, apart, gap, path.name), other, path))
    if not ranked:
        return None
    (_, apart, gap, name), other, path = min(ranked, key=lambda one: one[0])
    sizes = (f"{name}={size}" for name, size in _sizes(other).items() if size is not None)
    shape = ", ".join(sizes) if gap else "this shape"
    gpu = other.device_name if apart else "this GPU"
    return Nearest(file=other, path=path, reason=f"{name}: {shape} on {gpu}")


def driver_name(name: str) -> str:
    """What a GPU's driver, and so a server's file, calls it: of ``"B300"`` ``"NVIDIA B300 SXM6 AC"``.

    A name with more in it than the device's own is taken for the driver's.
    """
    device = devices.lookup(name)
    is_short = set(name.lower().split()) <= set(device.name.lower().split())
    return _DRIVER_NAMES.get(device.name, device.name) if is_short else name


def how_to_use(file: ServingFile, folder: str | Path, *, server: str = "vllm") -> str:
    """How a server finds a file that was written into a folder."""
    if file.kernel == "fused_moe":
        name = "VLLM_TUNED_CONFIG_FOLDER" if server == "vllm" else "SGLANG_MOE_CONFIG_DIR"
        return f"{server} takes it with {name}={Path(folder).absolute()}"
    where = {
        "vllm": "vllm/model_executor/layers/quantization/utils/configs",
        "sglang": "sglang/kernels/ops/gemm/configs",
    }[server]
    return f"{server} takes it from its own folder {where}, which no variable names: copy it there"


def _kind(file: ServingFile) -> tuple[object, ...]:
    return file.dtype, file.block_shape, file.per_channel_quant


def _sizes(file: ServingFile) -> dict[str, int | None]:
    return {"E": file.E, "N": file.N, "K": file.K}
