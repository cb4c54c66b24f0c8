"""Methods that know something beforehand: the surrogate, the nearest known problem, a roofline."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from autotune_rlm.bench._method import Method, NotApplicableError, Ordered, Search, Step
from autotune_rlm.dtypes import dtype_bytes
from autotune_rlm.landscapes import Landscape
from autotune_rlm.measure.replay import ReplayMeasurer
from autotune_rlm.search.policy import Policy
from autotune_rlm.search.tuner import Tuner
from autotune_rlm.store import Store, task_distance
from autotune_rlm.surrogate.eye import columns, has_facts
from autotune_rlm.types import Device, Measurement, Task

_NEAR = 8  # known problems in the store of a search, which asks for no more
_WORKERS = 8  # simulated compilations at a time
_stores: dict[int, tuple[Sequence[Landscape], Store]] = {}


class Rlm(Method):
    """The product's own loop: ``Tuner`` with the decorator's settings, on a recorded landscape.

    A record does not tell which candidate was the default, so none is measured for being it. What is
    given as training data is in the store: the best configurations of the nearest problems.
    """

    default: int | None = None

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self.surrogate = _surrogate(search)

    def run(self, replay: ReplayMeasurer, limit: int) -> Iterator[Step]:
        search = self.search
        begin = time.perf_counter()
        steps: list[Step] = []
        places = {c.key: i for i, c in enumerate(search.candidates)}

        class Noting(ReplayMeasurer):
            """Notes each measurement with its time."""

            def measure(self, task: Task, candidates: Any) -> Iterator[tuple[Any, Measurement]]:
                for candidate, found in super().measure(task, candidates):
                    seconds = self.clock_s + time.perf_counter() - begin
                    steps.append(Step(places[candidate.key], found, seconds))
                    yield candidate, found

        noting = Noting(replay.landscape, workers=_WORKERS)
        with self._store() as store:
            tuner = Tuner(surrogate=self.surrogate, measurer=noting, store=store, policy=Policy())
            result = tuner.tune(
                search.task,
                search.candidates,
                budget=limit,
                seed=search.seed,
                default=self.default,
            )
        if result.event.stop == "no better one is likely":
            self.stop = result.event.stop
        replay.clock_s = noting.clock_s
        yield from steps

    def zero_shot(self) -> np.ndarray:
        return self.surrogate.predict(self.search.task, self.search.candidates).median

    @contextlib.contextmanager
    def _store(self) -> Iterator[Store]:
        """A store of this search's own, with what it would ask for of those known."""
        task = self.search.task
        near = _store_of(self.search.train).nearest(task, _NEAR, same_device=False)
        with Store(":memory:") as store:
            store.add_many((other, o.candidate, o.measurement) for other, o in near)
            yield store


class RlmWithDefault(Rlm):
    """As ``Rlm``, with the first of the shuffled candidates as the default: what a launch does."""

    default = 0


class RlmZeroShot(Ordered):
    """The surrogate's order before anything was measured; nothing is learned."""

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self._prediction = _surrogate(search).predict(search.task, search.candidates)

    def order(self) -> np.ndarray:
        return self._prediction.order(minimize=self.search.task.minimize)

    def zero_shot(self) -> np.ndarray:
        return self._prediction.median


class FactsTrees(Ordered):
    """XGBoost on the compiler's facts, trained as one usually does on what the surrogate learned from.

    One boosted ensemble with a squared loss on the logarithm of the slow-down; nothing is learned
    during a search. Chen and Guestrin 2016, "XGBoost: A Scalable Tree Boosting System".
    """

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        eye = _surrogate(search).eye
        if eye is None:
            raise NotApplicableError("the surrogate's checkpoint has no trees")
        if not has_facts(search.candidates):
            raise NotApplicableError("facts of its candidates are not known; give its program")
        self._predicted = eye.plain.predict(columns(search.candidates))

    def order(self) -> np.ndarray:
        return np.argsort(self._predicted, kind="stable")

    def zero_shot(self) -> np.ndarray:
        return np.exp(self._predicted)


class Nearest(Ordered):
    """The best configuration of the nearest known problem, then of the next nearest, and so on.

    Known are the landscapes given as training data, of the same kernel and metric. Nearness is the
    store's (``task_distance``). When every known best is measured, their second bests follow; when
    none is left, random candidates.
    """

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        task, known = search.task, _known(search)
        if not known:
            raise NotApplicableError(f"no training landscape of kernel {task.kernel!r}")
        known.sort(key=lambda other: task_distance(task, other.task))
        self._wanted = _interleaved(search, known[:64])

    def order(self) -> np.ndarray:
        others = np.setdiff1d(np.arange(len(self.search.candidates)), self._wanted)
        return np.concatenate([self._wanted, self.search.rng.permutation(others)]).astype(int)


class Analytical(Ordered):
    """A roofline with wave quantisation for tiled matrix multiplications; nothing is learned.

    A configuration's time is that of its waves of tiles over the multiprocessors, each tile at the
    slower of its arithmetic and its memory traffic; shared memory beyond the device's limit fails.
    Needs sizes M, N, K in the problem, tile sizes BLOCK_M, BLOCK_N, BLOCK_K in the configurations
    and the device's specification.
    """

    def __init__(self, search: Search) -> None:
        super().__init__(search)
        self._time = _matmul_times(search)

    def order(self) -> np.ndarray:
        return np.argsort(self._time, kind="stable")

    def zero_shot(self) -> np.ndarray:
        return np.minimum(self._time, 1e12)


def _surrogate(search: Search) -> Any:
    if search.load_surrogate is None:
        raise ValueError("load_surrogate must be given for the methods that ask a surrogate")
    return search.load_surrogate()


def _store_of(train: Sequence[Landscape]) -> Store:
    """A store with the best of each landscape; made once for the list that searches share."""
    if id(train) not in _stores or _stores[id(train)][0] is not train:
        store = Store(":memory:")
        bests = ((known, known.best_index) for known in train)
        store.add_many(
            (known.task, known.candidates[i], known.measurements[i])
            for known, i in bests
            if i is not None
        )
        _stores.clear()
        _stores[id(train)] = train, store
    return _stores[id(train)][1]


def _known(search: Search) -> list[Landscape]:
    """What is known of other problems of the kernel."""
    task = search.task
    return [
        known
        for known in search.train
        if known.task.kernel == task.kernel
        and known.task.metric == task.metric
        and known.task.key != task.key
        and known.best_index is not None
    ]


def _interleaved(search: Search, known: list[Landscape]) -> list[int]:
    """All best configurations in order of nearness, then all second bests, and so on."""
    index = {c.key: i for i, c in enumerate(search.candidates)}
    ranked = []
    for landscape in known:
        order = np.argsort(landscape.values if landscape.task.minimize else -landscape.values)
        best = (landscape.candidates[i].key for i in order[: int(landscape.ok.sum())])
        ranked.append([index[key] for key in best if key in index][:256])
    depth = max(map(len, ranked), default=0)
    picks = (order[rank] for rank in range(depth) for order in ranked if rank < len(order))
    return list(dict.fromkeys(picks))


def _matmul_times(search: Search) -> np.ndarray:
    """Predicted milliseconds, shape (n,); infinite where shared memory does not suffice."""
    problem = {str(k).upper(): v for k, v in search.task.problem.items()}
    try:
        m, n, k = (int(problem[name]) for name in "MNK")
        bm, bn, bk = (
            np.array([float(c.config[f"BLOCK_{name}"]) for c in search.candidates])
            for name in "MNK"
        )
    except (KeyError, TypeError, ValueError):
        raise NotApplicableError(
            "not a matmul with sizes M, N, K and tiles BLOCK_M, _N, _K"
        ) from None
    device = search.task.device
    if device.sms is None or device.mem_gb_s is None or device.fp32_tflops is None:
        raise NotApplicableError(f"no specification of device {device.name!r}")
    a_bytes, b_bytes = _operand_bytes(problem)
    stages = _parameter(search, ("num_stages", "numstages"), 2.0)
    warps = _parameter(search, ("num_warps", "numwarps"), 4.0)
    shared_kb = (bm * bk * a_bytes + bk * bn * b_bytes) * np.maximum(stages - 1, 1) / 1024
    limit_kb = device.max_shared_kb_per_block or device.shared_kb_per_sm or 48.0
    total_kb = device.shared_kb_per_sm or limit_kb
    resident = np.clip(
        np.minimum(total_kb // np.maximum(shared_kb, 1.0), 48 // warps),
        1,
        np.maximum(1, 65536 / (bm * bn + 64 * warps * 32)),
    )
    tiles = np.ceil(m / bm) * np.ceil(n / bn)
    rate = _flops_per_sm(device, max(a_bytes, b_bytes))
    reuse = np.sqrt(np.minimum(bm, bn) / np.maximum(bm, bn)) * np.minimum(1.0, bm * bn / 128**2)
    busy = np.minimum(1.0, warps * resident / 8) * (0.3 + 0.7 * reuse)
    steps = np.ceil(k / bk)
    flops = 2 * bm * bn * bk * steps / (rate * busy)
    traffic = (bm * a_bytes + bn * b_bytes) * bk * steps
    l2_gain = 3.0
    memory = traffic * device.sms / (device.mem_gb_s * 1e9 * l2_gain)
    waves = np.ceil(tiles / (device.sms * resident))
    seconds = waves * (resident * np.maximum(flops, memory) + 2e-7 * steps / np.maximum(stages, 1))
    return np.where(shared_kb > limit_kb, np.inf, seconds * 1e3)


def _operand_bytes(problem: Mapping[str, Any]) -> tuple[int, int]:
    both = str(problem.get("DTYPE", "fp16"))
    dtypes = (str(problem.get(name, both)) for name in ("MAT1_DTYPE", "MAT2_DTYPE"))
    a, b = (dtype_bytes(dtype, 2) for dtype in dtypes)
    return a, b


def _parameter(search: Search, names: tuple[str, ...], missing: float) -> np.ndarray:
    values = [
        next((c.config[n] for n in names if n in c.config), missing) for c in search.candidates
    ]
    return np.array(values, dtype=np.float64)


def _flops_per_sm(device: Device, operand_bytes: int) -> float:
    fp32 = float(device.fp32_tflops or 1.0)
    tensor = float(device.fp16_tensor_tflops or 0.0)
    peak = {1: tensor, 2: tensor, 4: tensor / 2}.get(operand_bytes, 0.0) or fp32
    return peak * 1e12 / float(device.sms or 1)
