"""Whatever study people run, ``RLMSampler`` proposes something that the study can use."""

from __future__ import annotations

import math
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.CRITICAL)

from optuna.distributions import (  # noqa: E402
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial  # noqa: E402

from autotune_rlm.integrations.optuna import RLMSampler  # noqa: E402

_PROPERTY = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_VALUES = st.one_of(
    st.floats(-10, 10),
    st.sampled_from([0.0, 1e-300, 5e-324, 1e300, 1.7e308, -1.7e308, math.inf, -math.inf, math.nan]),
)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


@st.composite
def _distributions(draw):
    kind = draw(st.sampled_from(["float", "log", "step", "int", "intlog", "choice", "huge"]))
    if kind == "float":
        low = draw(st.floats(-1e6, 1e6))
        return FloatDistribution(low, low + draw(st.floats(0, 1e6)))
    if kind == "log":
        low = draw(st.floats(1e-12, 1e3))
        return FloatDistribution(low, low * draw(st.floats(1.0, 1e6)), log=True)
    if kind == "step":
        step = draw(st.sampled_from([0.1, 0.25, 3.0]))
        return FloatDistribution(-1.0, -1.0 + step * draw(st.integers(0, 60)), step=step)
    if kind == "int":
        low = draw(st.integers(-(10**9), 10**9))
        step = draw(st.integers(1, 7))
        return IntDistribution(low, low + step * draw(st.integers(0, 10**6)), step=step)
    if kind == "intlog":
        return IntDistribution(1, draw(st.integers(1, 10**7)), log=True)
    if kind == "huge":
        return draw(
            st.sampled_from(
                [
                    FloatDistribution(-1.7e308, 1.7e308),
                    FloatDistribution(5e-324, 1e308, log=True),
                    IntDistribution(-(2**62), 2**62),
                    FloatDistribution(0.0, 1e-320),
                ]
            )
        )
    return CategoricalDistribution(
        draw(
            st.sampled_from(
                [
                    ("a", "b", "c"),
                    (None, True, 1.5, "x"),
                    ((64,), (64, 64), (128, 64)),
                    ([1], [1, 2]),
                    (1, 2, 4, 8),
                    (float("nan"), 0.0, 1.0),
                    (True, False),
                    ("only",),
                    tuple(range(100)),
                ]
            )
        )
    )


def _random(distribution, rng):
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[rng.integers(len(distribution.choices))]
    probe = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=int(rng.integers(2**31)))
    )
    return probe.ask({"x": distribution}).params["x"]


@_PROPERTY
@given(data=st.data())
def test_any_space_and_any_values_give_a_proposal_inside_of_the_space(data):
    space = {f"p{i}": data.draw(_distributions()) for i in range(data.draw(st.integers(1, 4)))}
    k = data.draw(st.integers(1, 3))
    directions = data.draw(
        st.lists(st.sampled_from(["minimize", "maximize"]), min_size=k, max_size=k)
    )
    study = optuna.create_study(
        directions=directions, sampler=RLMSampler(seed=data.draw(st.integers(0, 9)))
    )
    for _ in range(data.draw(st.integers(0, 11))):
        trial = study.ask(space)
        for name, distribution in space.items():
            internal = distribution.to_internal_repr(trial.params[name])
            assert distribution._contains(internal)
        what = data.draw(st.sampled_from(["value", "value", "value", "fail", "prune", "leave"]))
        if what == "fail":
            study.tell(trial, state=TrialState.FAIL)
        elif what == "prune":
            if k == 1:
                trial.report(data.draw(_VALUES), 0)
            study.tell(trial, state=TrialState.PRUNED)
        elif what == "value":
            values = [data.draw(_VALUES) for _ in range(k)]
            study.tell(trial, values, skip_if_finished=False) if not any(
                map(math.isnan, values)
            ) else study.tell(trial, state=TrialState.FAIL)
    study.ask(space)


@_PROPERTY
@given(data=st.data())
def test_any_constraints_are_survived(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    k = data.draw(st.integers(1, 3))
    n = data.draw(st.integers(2, 30))
    study = optuna.create_study(directions=["maximize"] * k, sampler=RLMSampler(seed=0))
    space = {"x": FloatDistribution(0, 1), "y": IntDistribution(0, 100)}
    limits = st.one_of(st.floats(-5, 5), st.sampled_from([math.inf, -math.inf, 1e308, -1e308, 0.0]))
    for i in range(n):
        constraints = [data.draw(limits) for _ in range(2 if i % 5 else 1)]
        study.add_trial(
            create_trial(
                params={"x": float(rng.random()), "y": int(rng.integers(101))},
                distributions=space,
                values=list(rng.random(k)),
                system_attrs={"constraints": constraints} if i % 7 else {},
            )
        )
    assert set(study.ask(space).params) == {"x", "y"}


@pytest.mark.parametrize("objectives", [1, 2])
def test_one_feasible_mediocre_trial_of_many_is_not_forgotten(objectives):
    rng = np.random.default_rng(0)
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    study = optuna.create_study(directions=["maximize"] * objectives, sampler=RLMSampler(seed=0))
    for i in range(900):
        x, y = map(float, rng.random(2))
        study.add_trial(
            create_trial(
                params={"x": x, "y": y},
                distributions=space,
                values=[0.0 if i == 103 else x + y] * objectives,
                system_attrs={"constraints": [-1.0 if i == 103 else 1.0]},
            )
        )
    lucky = study.trials[103].params
    asked = [study.ask(space).params for _ in range(3)]
    assert min(abs(p["x"] - lucky["x"]) + abs(p["y"] - lucky["y"]) for p in asked) < 0.5


@pytest.mark.parametrize(
    "choices", [[(64,), (64, 64), (128, 64)], [None, "a", 1.5, True], [[1], [2]]]
)
def test_categories_of_any_type_with_several_workers(choices):
    study = optuna.create_study(sampler=RLMSampler(seed=0))

    def objective(trial):
        time.sleep(0.01)
        chosen = trial.suggest_categorical("layers", choices)
        return trial.suggest_float("lr", 0, 1) + len(str(chosen))

    study.optimize(objective, n_trials=24, n_jobs=3)
    assert len(study.trials) == 24
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


@pytest.mark.parametrize("earlier", [["relu", "gelu", "tanh"], ["tanh"], ["other"]])
@pytest.mark.parametrize("way", ["store", "warm_start"])
def test_choices_and_parameters_may_change_between_runs(tmp_path, earlier, way):
    def run(choices, extra, **options):
        study = optuna.create_study(study_name="s", sampler=RLMSampler(seed=0, **options))

        def objective(trial):
            value = trial.suggest_float("lr", 1e-4, 1, log=True)
            if extra:
                value += trial.suggest_int(extra, 0, 9) + trial.suggest_float("width", 0, 5)
            return value + len(trial.suggest_categorical("act", choices))

        study.optimize(objective, n_trials=8)
        return study

    file = tmp_path / "trials.sqlite"
    first = run(earlier, "old", store=file)
    options = {"store": file} if way == "store" else {"warm_start": [first]}
    assert len(run(["relu", "tanh"], "new", **options).trials) == 8
    assert len(run(["relu", "tanh"], "", **options).trials) == 8


def test_one_sampler_in_several_studies_at_once():
    sampler, errors = RLMSampler(seed=1), []

    def go(names):
        study = optuna.create_study(sampler=sampler)
        try:
            study.optimize(lambda t: sum(t.suggest_float(n, 0, 1) for n in names), n_trials=12)
        except Exception as error:
            errors.append(error)

    threads = [
        threading.Thread(target=go, args=(names,)) for names in (["p", "q"], ["u", "v", "w"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_study_within_a_study_of_the_same_sampler():
    sampler = RLMSampler(seed=0)

    def outer(trial):
        x = trial.suggest_float("x", 0, 1)
        inner = optuna.create_study(sampler=sampler)
        inner.optimize(lambda t: (t.suggest_float("y", 0, 1) - x) ** 2, n_trials=4)
        return inner.best_value + x

    study = optuna.create_study(sampler=sampler)
    study.optimize(outer, n_trials=9)
    assert len(study.trials) == 9


def test_trials_of_one_study_do_not_depend_on_what_the_sampler_did_before():
    def run(sampler):
        study = optuna.create_study(sampler=sampler)
        study.optimize(
            lambda t: t.suggest_float("x", 0, 1) ** 2 + t.suggest_int("n", 0, 99), n_trials=9
        )
        return [t.params for t in study.trials]

    used = RLMSampler(seed=3)
    run(used)
    used._random = None  # the stream of random numbers begins anew, as a new sampler's does
    used._independent_sampler = RLMSampler(seed=3)._independent_sampler
    assert run(used) == run(RLMSampler(seed=3))


@pytest.mark.parametrize("storage", ["memory", "sqlite", "journal"])
def test_enqueued_failed_and_abandoned_trials_in_every_storage(tmp_path, storage):
    url = {
        "memory": None,
        "sqlite": f"sqlite:///{tmp_path / 's.db'}",
        "journal": optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "s.log"))
        ),
    }[storage]
    study = optuna.create_study(storage=url, sampler=RLMSampler(seed=0))
    study.enqueue_trial({"x": 0.25})
    study.enqueue_trial({"x": 0.5, "kind": "b", "n": 3})

    def objective(trial):
        x = trial.suggest_float("x", -1, 1)
        n = trial.suggest_int("n", 0, 50)
        if trial.number % 4 == 3:
            raise RuntimeError
        return x * x + n + (trial.suggest_categorical("kind", ["a", "b"]) == "a")

    study.ask()  # a worker that died before it asked for anything
    study.optimize(objective, n_trials=12, catch=(RuntimeError,))
    study.ask({"x": FloatDistribution(-1, 1)})  # and one that died later
    study.enqueue_trial({"n": 7})
    study.optimize(objective, n_trials=4, catch=(RuntimeError,))
    assert study.trials[-1].state.is_finished()
    queued = [t for t in study.trials if t.system_attrs.get("fixed_params") == {"n": 7}]
    assert [t.params["n"] for t in queued] == [7]


def test_what_was_enqueued_in_part_is_completed_to_go_with_it():
    study = optuna.create_study(sampler=RLMSampler(seed=0))

    def objective(trial):
        kind = trial.suggest_categorical("kind", ["low", "high"])
        x = trial.suggest_float("x", 0, 1)
        return (x - (0.1 if kind == "low" else 0.9)) ** 2 + (0.0 if kind == "low" else 0.5)

    for kind in ("low", "high"):
        for x in np.linspace(0, 0.7, 8):
            study.enqueue_trial({"kind": kind, "x": float(x)})
    study.enqueue_trial({"kind": "high"})
    study.optimize(objective, n_trials=17)
    assert study.trials[-1].params["x"] > 0.7


def test_a_small_space_is_tried_whole_before_anything_is_repeated():
    def objective(trial):
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        if kind == "a":
            return trial.suggest_int("n", 0, 4)
        return trial.suggest_float("x", 0, 1, step=0.25) + (kind == "c")

    study = optuna.create_study(sampler=RLMSampler(seed=0))
    study.optimize(objective, n_trials=15)
    seen = {tuple(sorted(t.params.items())) for t in study.trials}
    assert len(seen) == 15
    study.optimize(objective, n_trials=3)
    assert len(study.trials) == 18


def test_an_integer_of_many_values_is_not_repeated():
    study = optuna.create_study(sampler=RLMSampler(seed=0))
    study.optimize(lambda t: abs(t.suggest_int("n", 0, 200) - 77), n_trials=30)
    assert len({t.params["n"] for t in study.trials}) == 30
    assert study.best_value == 0


def test_failures_teach_where_not_to_go():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if x > 0.6:
            raise RuntimeError("out of memory")
        return abs(x - 0.55) + abs(y - 0.3)

    failed = 0
    for seed in range(3):
        study = optuna.create_study(sampler=RLMSampler(seed=seed))
        study.optimize(objective, n_trials=30, catch=(RuntimeError,))
        failed += [t.state for t in study.trials[10:]].count(TrialState.FAIL)
        assert study.best_value < 0.1
    assert failed < 40  # of 60; expected improvement alone goes where nothing ever succeeded: 59


def test_pruned_trials_tell_what_they_would_have_reached():
    rng = np.random.default_rng(0)
    study = optuna.create_study(sampler=RLMSampler(seed=0))
    space = {"x": FloatDistribution(0, 1)}

    def add(x, state):
        final = (x - 0.3) ** 2
        steps = {0: 10 + 2 * final, 1: 5 + 2 * final}
        study.add_trial(
            create_trial(
                state=state,
                params={"x": x},
                distributions=space,
                value=final if state == TrialState.COMPLETE else None,
                intermediate_values=steps if state == TrialState.COMPLETE else {0: steps[0]},
            )
        )

    for x in (0.7, 0.8, 0.9, 0.95, 1.0):
        add(x, TrialState.COMPLETE)
    for x in rng.random(12):
        add(float(x), TrialState.PRUNED)
    assert abs(study.ask(space).params["x"] - 0.3) < 0.1


def test_set_constraint_of_optuna_5():
    if not hasattr(optuna.trial.Trial, "set_constraint"):
        pytest.skip("Optuna 4")
    study = optuna.create_study(sampler=RLMSampler(seed=0))

    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_constraint("sum", 0.8 - x - y)
        if trial.number % 2:
            trial.set_constraint("sometimes", x - 0.7)
        return x + 2 * y

    study.optimize(objective, n_trials=25)
    assert study.best_value < 0.95


def test_thousands_of_categories_need_no_square_matrix():
    import tracemalloc

    study = optuna.create_study(sampler=RLMSampler(seed=0))
    names = [f"word{i}" for i in range(8000)]

    def objective(trial):
        chosen = trial.suggest_categorical("word", names)
        return len(chosen) + trial.suggest_float("x", 0, 1)

    study.optimize(objective, n_trials=8)
    tracemalloc.start()
    study.optimize(objective, n_trials=2)
    assert tracemalloc.get_traced_memory()[1] < 60e6  # 8,000 by 8,000 numbers are 512 MB
    tracemalloc.stop()


@pytest.mark.parametrize("way", ["store", "warm_start"])
@pytest.mark.parametrize("conditional", [False, True])
def test_the_first_trial_uses_what_is_known(tmp_path, way, conditional):
    def objective(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        value = 10.0 * (kind == "a")
        if kind == "b" or not conditional:
            value += (trial.suggest_float("x", -5, 5) - 3.7) ** 2
        return value + trial.suggest_int("n", 0, 9)

    file = tmp_path / "store.sqlite"
    first = optuna.create_study(study_name="s", sampler=RLMSampler(seed=0, store=file))
    first.optimize(objective, n_trials=25)
    options = {"store": file} if way == "store" else {"warm_start": [first]}
    again = optuna.create_study(study_name="s", sampler=RLMSampler(seed=1, **options))
    again.optimize(objective, n_trials=1)
    assert again.best_value <= first.best_value + 1e-9


def test_ranges_may_change_within_a_study():
    study = optuna.create_study(sampler=RLMSampler(seed=0))
    study.optimize(lambda t: (t.suggest_float("x", 0, 10) - 12) ** 2, n_trials=10)
    study.optimize(lambda t: (t.suggest_float("x", 5, 20) - 12) ** 2, n_trials=8)
    assert study.best_value < 0.1
