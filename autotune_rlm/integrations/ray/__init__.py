"""Measuring on a Ray cluster: candidates go to actors, one for each accelerator, several at a time."""

from autotune_rlm.integrations.ray._cluster import RayClusterError
from autotune_rlm.integrations.ray._measurer import Cluster, RayMeasurer
from autotune_rlm.integrations.ray._workload import isolated

__all__ = ["Cluster", "RayClusterError", "RayMeasurer", "isolated"]
