"""Measuring on a Ray cluster: the options of the commands that can, and the cluster that they mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from autotune_rlm.integrations.ray import Cluster

RAY = typer.Option(
    "--ray", help="Measure on a Ray cluster: auto, HOST:6379, ray://HOST:10001 or local."
)
WORKERS = typer.Option(
    "--ray-workers", min=1, help="With --ray: how many; default: all that find a place."
)
DEVICE = typer.Option("--device", help="With --ray: only GPUs of this name.")


@contextlib.contextmanager
def open_cluster(
    address: str | None, *, workers: int | None, device: str | None, cpus: bool
) -> Iterator[Cluster | None]:
    """The cluster of ``--ray``, for as long as it is needed; with ``cpus`` its workers need no GPU.

    What goes wrong with it, in mid-search too, is a ValueError.
    """
    if address is None:
        if workers is not None or device is not None:
            raise ValueError("--ray-workers and --device go with --ray")
        yield None
        return
    try:
        from autotune_rlm.integrations.ray import Cluster, RayClusterError
    except ImportError as error:
        raise ValueError(f"--ray needs `pip install 'autotune-rlm[ray]'`: {error}") from None
    try:
        with Cluster(
            address, workers=workers, device=device, gpus=False if cpus else None
        ) as cluster:
            if not cpus and cluster.device.target == "cpu":
                raise ValueError(
                    "the cluster has no GPU; --interpreter runs small problems without"
                )
            yield cluster
    except RayClusterError as error:
        raise ValueError(str(error)) from None
