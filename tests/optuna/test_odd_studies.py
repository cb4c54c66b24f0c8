"""Odd studies that people run: whatever happens in them, ``RLMSampler`` goes on."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import socket
import time

import pytest

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.CRITICAL)

from optuna.distributions import CategoricalDistribution, FloatDistribution  # noqa: E402
from optuna.samplers import PartialFixedSampler  # noqa: E402
from optuna.trial import TrialState, create_trial  # noqa: E402

from autotune_rlm.integrations.optuna import RLMSampler  # noqa: E402
from autotune_rlm.store import Store, StoreError  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


def _sampler(**options):
    options = {"seed": 0, "n_startup_trials": 2, "warn_independent_sampling": False} | options
    return RLMSampler(**options)


def _run(objective, *, n=12, catch=(), objectives=1, storage=None, jobs=1, **options):
    study = optuna.create_study(
        directions=["minimize"] * objectives, sampler=_sampler(**options), storage=storage
    )
    study.optimize(objective, n_trials=n, catch=catch, n_jobs=jobs)
    assert len(study.trials) == n
    assert not any(t.state == TrialState.RUNNING for t in study.trials)
    return study


def _x(trial):
    return trial.suggest_float("x", 0, 1)


def _failing_above(trial):
    if (x := _x(trial)) > 0.3:
        raise RuntimeError
    return x


def _failing_before_it_asks(trial):
    if trial.number % 2:
        raise RuntimeError
    return _x(trial)


def _pruned(trial):
    trial.report([math.nan, math.inf, -math.inf, 1e308][trial.number % 4], trial.number % 3)
    if _x(trial) > 0.2:
        raise optuna.TrialPruned
    return 1.0


def _always_pruned(trial):
    _x(trial)
    raise optuna.TrialPruned


def _reversed_order(trial):
    names = ["a", "b", "c"][:: 1 if trial.number % 2 else -1]
    return sum(trial.suggest_float(name, 0, 1) for name in names)


@pytest.mark.parametrize(
    "objective",
    [
        _failing_above,
        _failing_before_it_asks,
        _pruned,
        _always_pruned,
        _reversed_order,
        lambda t: _x(t) * math.nan,
        lambda t: _x(t) if t.number % 3 else math.nan,
        lambda t: _x(t) if t.number % 2 else None,
        lambda t: float(t.number),
        lambda t: t.suggest_int("n", 1, 1) + t.suggest_categorical("c", [3]),
        lambda t: t.suggest_int("n", 0, max(0, 8 - t.number)) + _x(t),
        lambda t: t.suggest_float("x", 0, 1 + t.number) + t.suggest_int("m", t.number, 99),
        lambda t: t.suggest_float(f"x{t.number}", 0, 1) + t.suggest_float("y", 0, 1),
        lambda t: t.suggest_float("", 0, 1) + len(t.suggest_categorical("ü\n", ["", "ü" * 3000])),
        lambda t: float(t.suggest_categorical("c", [math.nan, 1.0, None, True]) == 1.0) + _x(t),
        lambda t: float(t.suggest_categorical("c", [True, 1, 1.0, "1"]) == 1) + _x(t),
        lambda t: t.suggest_categorical("f", [math.sin, math.cos, abs])(_x(t)),
        lambda t: len(t.suggest_categorical("c", [[1], [1, 2], {"a": 1}])) + _x(t),
        lambda t: t.suggest_float("x", 0, 1, step=0.3) + t.suggest_int("n", 0, 10, step=3),
        lambda t: t.suggest_float("x", 0, 1e-3, step=1e-9),
        lambda t: t.suggest_float("x", -1e308, 1e308) / 2,
        lambda t: t.suggest_int("n", 1, 10**9, log=True) + t.suggest_int("k", 5, 25, step=5),
    ],
)
@pytest.mark.parametrize("jobs", [1, 3])
def test_odd_objectives(objective, jobs):
    _run(objective, catch=(RuntimeError, TypeError, ValueError), jobs=jobs)


@pytest.mark.parametrize("objectives", [2, 3, 5])
def test_several_objectives_with_failures_infinities_and_constraints(objectives):
    def objective(trial):
        x, y = _x(trial), trial.suggest_float("y", 0, 1)
        if trial.number % 5 == 1:
            raise optuna.TrialPruned
        if trial.number % 5 == 2:
            raise KeyError
        infinite = [math.inf, -math.inf, y][trial.number % 3]
        return (x, infinite, y * 1e300, 0.0, 1 - x)[:objectives]

    def rule(trial):
        return (trial.params["x"] - 0.5, [math.inf, math.nan, -1.0][trial.number % 3])

    _run(objective, catch=(KeyError,), objectives=objectives, constraints_func=rule)


def test_a_range_that_is_wider_than_numbers_go():
    def objective(trial):
        if trial.number == 0:
            raise RuntimeError
        return trial.suggest_float("x", -1.7e308, 1.7e308) / 2

    _run(objective, catch=(RuntimeError,), n=20)


def test_a_varying_number_of_constraints():
    _run(_x, constraints_func=lambda trial: (1.0,) * (trial.number % 4))


def test_a_stranger_asks_and_tells_in_any_order():
    study = optuna.create_study(sampler=_sampler())
    first = [study.ask() for _ in range(5)]
    for trial in first:
        study.tell(trial, _x(trial))
    space = {"x": FloatDistribution(0, 1), "c": CategoricalDistribution(["a", ("b",)])}
    later = [study.ask(space) for _ in range(6)]
    for trial in reversed(later):
        study.tell(trial, trial.params["x"])
    study.tell(study.ask().number, state=TrialState.FAIL)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.ask()  # never told
    study.optimize(_x, n_trials=3)
    assert [t.state for t in study.trials[-3:]] == [TrialState.COMPLETE] * 3


def test_a_sampler_within_partial_fixed_sampler():
    def objective(trial):
        return _x(trial) + trial.suggest_float("y", 0, 1)

    study = _run(objective, n=6)
    study.sampler = PartialFixedSampler({"y": 0.25}, study.sampler)
    study.optimize(objective, n_trials=5)
    assert [t.params["y"] for t in study.trials[-5:]] == [0.25] * 5


def test_a_sampler_that_is_pickled_and_copied_on_the_way():
    study = _run(_x, n=5)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    study.optimize(_x, n_trials=2)
    study.sampler = copy.deepcopy(study.sampler)
    study.optimize(_x, n_trials=2)


def test_what_is_enqueued_in_part_beyond_the_range_or_by_a_wrong_name():
    study = optuna.create_study(sampler=_sampler())
    for params in ({"x": 0.5, "nobody": 3}, {"x": 7.0}, {"n": 99}, {}):
        study.enqueue_trial(params)
    study.optimize(lambda t: _x(t) + t.suggest_int("n", 1, 3), n_trials=8)
    assert study.trials[0].params["x"] == 0.5


def test_a_parameter_whose_kind_changed():
    study = optuna.create_study(sampler=_sampler())
    kinds = CategoricalDistribution(["a", "b"])
    for value in range(6):
        trial = create_trial(value=value, params={"x": "ab"[value % 2]}, distributions={"x": kinds})
        study.add_trial(trial)
    study.optimize(lambda t: t.suggest_float("y", 0, 1), n_trials=5)


def test_a_trial_whose_worker_died_is_tried_again(tmp_path):
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{tmp_path / 'a.db'}",
        heartbeat_interval=1,
        grace_period=1,
        failed_trial_callback=optuna.storages.RetryFailedTrialCallback(max_retry=2),
    )
    study = _run(_x, n=3, storage=storage)
    lost = study.ask()
    x = _x(lost)
    storage.record_heartbeat(lost._trial_id)
    time.sleep(2.2)
    study.optimize(_x, n_trials=2)
    assert study.trials[lost.number].state == TrialState.FAIL
    assert [t.params["x"] for t in study.trials[lost.number + 1 :]].count(x) == 1


def test_the_grpc_proxy(tmp_path):
    pytest.importorskip("grpc")
    server = pytest.importorskip("optuna.storages._grpc.server")
    if not hasattr(optuna.storages.GrpcStorageProxy, "wait_server_ready"):
        pytest.skip("this Optuna cannot wait for a server")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    database = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'a.db'}")
    running = server.make_server(database, "localhost", port)
    running.start()
    try:
        proxy = optuna.storages.GrpcStorageProxy(host="localhost", port=port)
        proxy.wait_server_ready(timeout=60)
        _run(lambda t: _x(t) + t.suggest_int("n", 1, 100, log=True), n=8, storage=proxy)
    finally:
        running.stop(0)


@pytest.mark.parametrize("given", ["raises", "words in a mapping", "another kind"])
def test_a_description_that_cannot_be_used_is_said_once(given, caplog):
    turn = itertools.count()

    def describe(params):
        if next(turn) % 3:
            return {"size": params["x"], "unknown": math.nan, "endless": math.inf}
        if given == "raises":
            raise KeyError("boom")
        return {"size": "large"} if given == "words in a mapping" else 3

    _run(_x, n=6, describe=describe)
    assert sum("describe failed for" in message for message in caplog.messages) == 1


def test_a_surrogate_that_fails_does_not_end_the_study():
    class Broken:
        def predict(self, task, candidates, observed=()):
            raise MemoryError("no room")

    _run(_x, n=6, describe=lambda p: {"size": p["x"]}, surrogate=Broken())


def test_a_store_that_cannot_be_opened_is_an_error_before_any_trial(tmp_path):
    damaged = tmp_path / "store.sqlite"
    damaged.write_text("no database" * 100)
    with pytest.raises(StoreError):
        RLMSampler(store=damaged)


def test_a_store_that_fails_on_the_way_does_not_end_the_study(tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError("no space left on device")

    store = Store(tmp_path / "store.sqlite")
    monkeypatch.setattr(store, "add", fail)
    monkeypatch.setattr(store, "nearest", fail)
    _run(_x, n=6, store=store)
