from ._cluster import Cluster, RayClusterError
from ._measurer import RayMeasurer
from ._workload import isolated

__all__ = ["Cluster", "RayClusterError", "RayMeasurer", "isolated"]
