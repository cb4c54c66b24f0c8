"""A Triton driver without a device: kernels are compiled for real, launches are only counted.

For tests and benchmarks of everything around a launch on a machine without a GPU::

    with StubDriver(time_ms=lambda launch: 1.0 / launch.constants["BLOCK"]) as stub:
        kernel[grid](x, y, n)
    print(stub.launches)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.compiler import compiler

_KIB = 1024


@dataclass(frozen=True)
class Launch:
    """One pretended launch of a kernel, with the constants and options that it was compiled with."""

    kernel: str
    constants: dict[str, Any]
    options: dict[str, Any]
    grid: tuple[int, int, int]


class StubDriver(DriverBase):
    """Pretends to be a device.

    Args:
        target: What is compiled for.
        max_shared_bytes: Shared memory that a program may use; more cannot be loaded.
        time_ms: How long a launch takes, for ``get_benchmarker``; may raise. None for 1 ms always.
        keep: Whether to take note of launches; without, nothing can be benchmarked and a launch
            costs almost nothing.

    Attributes:
        launches: All launches so far, oldest first.
        benchmarked: Launches that were timed.
    """

    def __init__(
        self,
        *,
        target: tuple[str, int | str, int] = ("cuda", 90, 32),
        max_shared_bytes: int = 227 * _KIB,
        time_ms: Callable[[Launch], float] | None = None,
        keep: bool = True,
    ) -> None:
        super().__init__()
        self.launches: list[Launch] = []
        self.benchmarked: list[Launch] = []
        self.keep = keep
        self._target = GPUTarget(*target)
        self._time_ms = time_ms or (lambda launch: 1.0)
        self._local = threading.local()
        self._before: list[Any] = []
        self.launcher_cls = _StubLauncher
        self.utils = SimpleNamespace(
            load_binary=lambda name, binary, shared, device: (object(), object(), 32, 0, 1024),
            unload_module=lambda module: None,
            get_device_properties=lambda device: {
                "max_shared_mem": max_shared_bytes,
                "multiprocessor_count": 132,
                "max_num_regs": 65536,
                "warpSize": self._target.warp_size,
                "sm_clock_rate": 1_755_000,
                "mem_clock_rate": 2_619_000,
                "mem_bus_width": 5120,
            },
        )

    def __enter__(self) -> StubDriver:
        config = triton.runtime.driver
        self._before.append(vars(config).get("_active", vars(config).get("active")))
        config.set_active(self)
        compiler.max_shared_mem.cache_clear()  # Triton keeps the last device's
        return self

    def __exit__(self, *exc: object) -> None:
        triton.runtime.driver.set_active(self._before.pop())
        compiler.max_shared_mem.cache_clear()

    def launched(self, launch: Launch) -> None:
        """Takes note of a launch of this thread."""
        self._local.last = launch
        if self.keep:
            self.launches.append(launch)

    def get_benchmarker(self) -> Callable[..., list[float]]:
        """A ``do_bench(call, quantiles)`` that launches once and asks ``time_ms``."""

        def bench(
            call: Callable[[], Any], *, quantiles: Sequence[float] = (0.5,), **_: Any
        ) -> list[float]:
            call()
            self.benchmarked.append(self._local.last)
            return [float(self._time_ms(self._local.last))] * len(quantiles)

        return bench

    @classmethod
    def is_active(cls) -> bool:
        """Never found by itself; ``with StubDriver():`` makes it the active one."""
        return False

    def get_current_target(self) -> GPUTarget:
        """What is compiled for."""
        return self._target

    def get_current_device(self) -> int:
        """Device 0."""
        return 0

    def set_current_device(self, device: int) -> None:
        """There is only one."""

    def get_current_stream(self, device: int | None = None) -> int:
        """Stream 0."""
        return 0

    def get_active_torch_device(self) -> Any:
        """Where the tensors are: in main memory."""
        import torch

        return torch.device("cpu")

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Not needed: nothing is launched from C++."""
        return ty


class _StubLauncher:
    def __init__(self, source: Any, metadata: Any) -> None:
        names = list(source.fn.arg_names)
        self._kernel = str(metadata.name)
        self._constants = {names[path[0]]: value for path, value in source.constants.items()}
        self._options = metadata._asdict()

    def __call__(self, grid_x: int, grid_y: int, grid_z: int, *_: Any) -> None:
        driver = triton.runtime.driver.active
        if driver.keep:
            grid = (grid_x, grid_y, grid_z)
            driver.launched(Launch(self._kernel, self._constants, self._options, grid))
