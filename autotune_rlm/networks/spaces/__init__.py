"""Architecture spaces: published ones, and the base class of your own."""

from __future__ import annotations

from autotune_rlm.networks.spaces._mobile import FBNet, MnasNet, NASBenchMacro
from autotune_rlm.networks.spaces._nasbench101 import NASBench101
from autotune_rlm.networks.spaces._nasbench201 import NASBench201
from autotune_rlm.networks.spaces._space import ArchitectureSpace, BuilderSpace
from autotune_rlm.networks.spaces._transformer import Transformer

__all__ = [
    "ArchitectureSpace",
    "BuilderSpace",
    "FBNet",
    "MnasNet",
    "NASBench101",
    "NASBench201",
    "NASBenchMacro",
    "Transformer",
    "space",
    "SPACES",
]

SPACES: dict[str, type[ArchitectureSpace]] = {
    "fbnet": FBNet,
    "mnasnet": MnasNet,
    "nasbench101": NASBench101,
    "nasbench201": NASBench201,
    "nasbench_macro": NASBenchMacro,
    "transformer": Transformer,
}
"""The published spaces by name."""
_ALIASES = {"accel_nasbench": "mnasnet", "nasbench101_30k": "nasbench101", "fbnet_latency": "fbnet"}


def space(name: str) -> ArchitectureSpace:
    """A published space by name.

    Raises:
        ValueError: There is no such space.
    """
    known = _ALIASES.get(name, name)
    if known not in SPACES:
        raise ValueError(f"space must be one of {sorted(SPACES)}, got {name!r}")
    return SPACES[known]()
