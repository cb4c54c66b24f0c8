"""Our engine behind Kernel Tuner's interface for strategies of its users (``OptAlg``)."""

from __future__ import annotations

import logging
import sys
from typing import Any

from kernel_tuner.strategies.common import CostFunc
from kernel_tuner.strategies.wrapper import OptAlg, OptAlgWrapper

from autotune_rlm._checks import check_number
from autotune_rlm.devices import lookup
from autotune_rlm.landscapes import kernel_tuner_observation
from autotune_rlm.search.engine import Search
from autotune_rlm.search.policy import Policy
from autotune_rlm.store import Store
from autotune_rlm.types import Candidate, Observation, Surrogate, Task

_log = logging.getLogger(__name__)
_KNOWN = 3  # of the best that the store knows of this problem, measured again first


class RLMStrategy(OptAlg):
    """Asks the engine which configuration Kernel Tuner runs next, and tells it the result.

    Kernel Tuner's own loop stays: its restrictions, budgets (``max_fevals``, ``time_limit``), cache
    files, checks and simulation mode. ``x0`` of its strategy options is run first.

    Args:
        surrogate: The model; by default the bundled one, loaded when the search begins.
        store: Keeps each result at once, and gives what is known of this problem and of near ones to
            begin with; None keeps nothing. A simulation keeps nothing: its times are a record's.
        policy: How configurations are chosen. By default all of the budget is spent, as Kernel Tuner's
            strategies do; ``Policy()`` stops where no better one is likely.
        problem: Sizes and dtypes by name; by default Kernel Tuner's problem size.
        seed: Equal results and seeds choose equal configurations.
        most: Configurations that are ranked at most; of a larger space a random sample of as many.

    Raises:
        ValueError: ``most`` is below 1; or, as the search begins, there are several objectives.
    """

    def __init__(
        self,
        *,
        surrogate: Surrogate | None = None,
        store: Store | None = None,
        policy: Policy | None = None,
        problem: dict[str, Any] | None = None,
        seed: int = 0,
        most: int = 20_000,
    ) -> None:
        super().__init__()
        check_number("most", most, least=1, whole=True)
        self.constraint_aware = True  # proposes members of the restricted space alone
        self.surrogate, self.store, self.problem = surrogate, store, problem
        self.policy = policy or Policy(seed=seed, min_gain=None)
        self.most = most
        self.search: Search | None = None

    def __call__(self, func: CostFunc, searchspace: Any) -> tuple[tuple[Any, ...], float]:
        """The best configuration within Kernel Tuner's budget, and its cost; a huge one without any."""
        names = list(searchspace.tune_params)
        objective, _ = _objective(func)
        task = self.task(func)
        candidates = self._candidates(searchspace, names, func.tuning_options.strategy_options)
        store = None if func.runner.simulation_mode else self.store
        first = candidates[:1] if "x0" in func.tuning_options.strategy_options else []
        self.search = Search(
            task,
            candidates,
            self._surrogate(),
            self.policy,
            first=[*first, *_known(store, task)],
            near=() if store is None else store.near_best(task),
        )
        costs: dict[str, float] = {}
        while self.search.ended is None:
            (candidate,) = self.search.ask()
            cost = func(candidate.payload)
            found = kernel_tuner_observation(func.results[-1], names, objective=objective)
            self.search.tell(candidate, found.measurement)
            costs[candidate.key] = cost
            if store is not None:
                store.add(task, candidate, found.measurement)
        best = self.search.best
        if best is None:
            return (), sys.float_info.max
        return best.candidate.payload, costs[best.candidate.key]

    def task(self, func: CostFunc) -> Task:
        """What is tuned, as the model and the store see it."""
        runner, source = func.runner, func.runner.kernel_source
        objective, higher = _objective(func)
        size = runner.kernel_options.problem_size
        text = source.kernel_sources[0] if source.kernel_sources else ""
        if not callable(text):
            text = source.get_kernel_string(0)  # the file where it is a file's name
        problem = {} if callable(size) else {"size": _plain(size)}
        return Task(
            kernel=str(source.kernel_name),
            device=lookup(str(runner.get_device_info().name)),
            problem=problem if self.problem is None else self.problem,
            source=text if isinstance(text, str) else "",
            language=str(getattr(source, "lang", "cuda")).lower(),
            metric="time_ms" if objective == "time" else objective,
            minimize=not higher,
        )

    def _candidates(self, searchspace: Any, names: list[str], options: Any) -> list[Candidate]:
        configs = [tuple(config) for config in searchspace.list]
        if len(configs) > self.most:
            _log.warning(
                "%d of %d configurations are ranked, chosen at random; raise most for more",
                self.most,
                len(configs),
            )
            configs = [tuple(config) for config in searchspace.get_random_sample(self.most)]
        if "x0" in options:
            configs.insert(0, tuple(options["x0"]))
        made = (
            Candidate({n: _plain(v) for n, v in zip(names, config, strict=True)}, payload=config)
            for config in configs
        )
        return list({c.key: c for c in made}.values())

    def _surrogate(self) -> Surrogate:
        if self.surrogate is None:
            from autotune_rlm.surrogate import load_surrogate

            # with the weights that were fine-tuned on what the store keeps
            self.surrogate = load_surrogate(
                "nano" if self.store is None else None, store=self.store
            )
        return self.surrogate


def rlm_strategy(**options: Any) -> OptAlgWrapper:
    """What ``tune_kernel(..., strategy=)`` takes; the arguments are those of ``RLMStrategy``."""
    return OptAlgWrapper(RLMStrategy(**options))


def _objective(func: CostFunc) -> tuple[str, bool]:
    """What is optimised, and whether more of it is better; newer versions have lists of both."""
    names, higher = (
        list(x) if isinstance(x, (list, tuple)) else [x]
        for x in (func.objective, func.objective_higher_is_better)
    )
    if len(names) != 1:
        raise ValueError(f"RLMStrategy takes one objective, got {', '.join(map(str, names))}")
    return str(names[0]), bool(higher[0])


def _known(store: Store | None, task: Task) -> list[Candidate]:
    """The best that is known of this problem."""
    if store is None:
        return []

    def value(o: Observation) -> float:
        assert o.measurement.value is not None
        return o.measurement.value if task.minimize else -o.measurement.value

    working = sorted((o for o in store.observations(task) if o.measurement.ok), key=value)
    return [o.candidate for o in working[:_KNOWN]]


def _plain(value: Any) -> Any:
    """``value`` as JSON has it: numpy's numbers become Python's, tuples lists."""
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.item() if hasattr(value, "item") else value
