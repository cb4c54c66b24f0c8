"""Energy of the processor as the kernel tells it (RAPL through Linux' powercap)."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path("/sys/class/powercap")


class Rapl:
    """The energy counters of all processor packages, in the folder of powercap's zones."""

    def __init__(self, folder: Path = _FOLDER) -> None:
        zones = sorted(folder.glob("intel-rapl:*")) if folder.is_dir() else []
        self._zones = [z for z in zones if _is_package(z) and _number(z / "energy_uj") is not None]

    @property
    def available(self) -> bool:
        """Whether there is a counter that this process may read."""
        return bool(self._zones)

    def read(self) -> tuple[int, ...]:
        """The counters in microjoules; they wrap around."""
        return tuple(_number(zone / "energy_uj") or 0 for zone in self._zones)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """What was used between two readings that are less than a wrap-around apart."""
        total = 0
        for zone, first, last in zip(self._zones, before, after, strict=True):
            total += last - first
            if last < first:
                total += _number(zone / "max_energy_range_uj") or 0
        return total / 1e6


def _is_package(zone: Path) -> bool:
    """Whether a zone is a whole processor, rather than a part of one or the platform around it."""
    if zone.name.count(":") > 1:
        return False
    try:
        return (zone / "name").read_text().startswith("package")
    except OSError:
        return True


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
