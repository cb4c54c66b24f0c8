"""What ``RLMSampler`` promises beyond Optuna's contract."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

optuna = pytest.importorskip("optuna")
optuna.logging.set_verbosity(optuna.logging.ERROR)

from autotune_rlm.integrations.optuna import RLMSampler  # noqa: E402
from autotune_rlm.integrations.optuna._activity import learn_rule  # noqa: E402
from autotune_rlm.types import Prediction  # noqa: E402


def _mixed(trial):
    lr = trial.suggest_float("lr", 1e-5, 1.0, log=True)
    depth = trial.suggest_int("depth", 1, 8)
    kind = trial.suggest_categorical("kind", ["a", "b", "c"])
    width = trial.suggest_categorical("width", [16, 32, 64, 128])
    return (np.log10(lr) + 3) ** 2 + 0.3 * abs(depth - 5) + (kind != "b") + abs(width - 64) / 64


def _best(sampler, objective, n, direction="minimize"):
    study = optuna.create_study(sampler=sampler, direction=direction)
    study.optimize(objective, n_trials=n)
    return study


def test_it_finds_what_random_search_does_not():
    ours = [_best(RLMSampler(seed=s), _mixed, 30).best_value for s in range(2)]
    random = [_best(optuna.samplers.RandomSampler(seed=s), _mixed, 30).best_value for s in range(2)]
    assert max(ours) < 0.05 < min(random)


_PROGRAM = """
    import json, optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from autotune_rlm.integrations.optuna import RLMSampler
    study = optuna.create_study(sampler=RLMSampler(seed=7))
    def objective(trial):
        x, y = trial.suggest_float("x", -3, 3), trial.suggest_categorical("y", ["a", "b", "c"])
        return x * x + "abc".index(y)
    study.optimize(objective, n_trials=12)
    print(json.dumps([t.params for t in study.trials]))
"""


def test_a_seed_gives_the_same_trials_in_every_process():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(_PROGRAM)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert json.loads(outputs[0]) == json.loads(outputs[1])


_WORKER = """
    import sys, optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    from autotune_rlm.integrations.optuna import RLMSampler
    study = optuna.load_study(study_name="s", storage=sys.argv[1], sampler=RLMSampler(seed=None))
    def objective(trial):
        return sum(trial.suggest_int(f"x{i}", 0, 5) for i in range(4))
    study.optimize(objective, n_trials=5)
"""


@pytest.mark.timeout(900)
def test_four_processes_on_one_database_try_no_point_twice_at_once(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="s", storage=url)
    workers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(_WORKER), url]) for _ in range(4)
    ]
    assert [w.wait(timeout=800) for w in workers] == [0] * 4
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert len(trials) == 20
    assert all(t.state.name == "COMPLETE" for t in trials)
    for a in trials:
        for b in trials[a.number + 1 :]:
            overlap = a.datetime_start < b.datetime_complete and b.datetime_start < (
                a.datetime_complete
            )
            assert not (overlap and a.params == b.params and a.number > 4)


def test_a_point_that_another_worker_began_and_finished_meanwhile_is_not_tried_again(monkeypatch):
    study = optuna.create_study(sampler=RLMSampler(seed=0, n_startup_trials=1))
    space = {"x": optuna.distributions.IntDistribution(0, 9)}
    study.tell(study.ask(space), 1.0)
    propose, meanwhile = RLMSampler._propose, []

    def beaten_to_it(self, turn, *args, **kwargs):
        raw = propose(self, turn, *args, **kwargs)
        if not meanwhile:
            meanwhile.append(turn.encoding.params(raw))
            study.add_trial(
                optuna.trial.create_trial(params=meanwhile[0], distributions=space, value=0.0)
            )
        return raw

    monkeypatch.setattr(RLMSampler, "_propose", beaten_to_it)
    assert study.ask(space).params["x"] != meanwhile[0]["x"]


def test_pending_trials_are_not_proposed_again():
    study = optuna.create_study(sampler=RLMSampler(seed=0, n_startup_trials=1))
    space = {"x": optuna.distributions.IntDistribution(0, 9)}
    first = study.ask(space)
    study.tell(first, 1.0)
    asked = [study.ask(space).params["x"] for _ in range(8)]
    assert len({first.params["x"], *asked}) == 9


def test_a_finite_space_is_searched_without_repeats_and_may_run_out():
    study = _best(RLMSampler(seed=0), lambda t: t.suggest_int("x", 0, 3), 8)
    assert {t.params["x"] for t in study.trials[:4]} == {0, 1, 2, 3}
    assert len(study.trials) == 8


def test_constraints_are_kept():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        trial.set_user_attr("c", 0.8 - x)
        return x + y

    sampler = RLMSampler(seed=0, constraints_func=lambda trial: (trial.user_attrs["c"],))
    study = _best(sampler, objective, 25)
    feasible = [t.value for t in study.trials if t.user_attrs["c"] <= 0]
    assert min(feasible) < 0.81
    assert study.best_value == min(feasible)


def test_a_nan_constraint_counts_as_violated():
    def rule(trial):
        return (float("nan") if trial.params["x"] > 0.2 else -1.0,)

    sampler = RLMSampler(seed=0, constraints_func=rule)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=25)
    assert 0.1 < study.best_value <= 0.2


def test_the_pareto_front_is_covered():
    def objective(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return x, (1 - x) ** 2 + y

    study = optuna.create_study(directions=["minimize"] * 2, sampler=RLMSampler(seed=0))
    study.optimize(objective, n_trials=30)
    front = np.array([t.values for t in study.best_trials])
    assert len(front) >= 8
    assert (front[:, 1] - (1 - front[:, 0]) ** 2).mean() < 0.1


def test_extreme_values_pruning_and_failures_are_survived():
    def objective(trial):
        x = trial.suggest_float("x", -1, 1)
        if trial.number % 5 == 1:
            return float("inf")
        if trial.number % 5 == 2:
            trial.report(x, 0)
            raise optuna.TrialPruned
        if trial.number % 5 == 3:
            raise RuntimeError
        return x * x

    study = optuna.create_study(sampler=RLMSampler(seed=0))
    study.optimize(objective, n_trials=25, catch=(RuntimeError,))
    assert len(study.trials) == 25
    assert study.best_value < 0.01


def test_conditional_parameters_are_modelled():
    def objective(trial):
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        if kind == "a":
            return 1.0 + trial.suggest_float("x", 0, 1)
        if kind == "b":
            return (trial.suggest_float("y", 0, 2) - 1.6) ** 2 + trial.suggest_int("z", 0, 9) / 9
        return 2.0

    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("autotune_rlm.integrations.optuna._sampler")
    logger.addHandler(handler)
    try:
        best = [_best(RLMSampler(seed=s), objective, 40).best_value for s in range(2)]
    finally:
        logger.removeHandler(handler)
    assert max(best) < 0.01
    assert len(messages) <= 2 * 4  # once for a parameter that only one trial has had


@pytest.mark.parametrize("order", [("C", "gamma", "kind", "rate"), ("kind", "a", "b", "z")])
def test_parameters_that_only_come_together_depend_on_what_decides(order):
    """Of two parameters of one branch neither stands for the other, whatever their names are."""
    decides = order.index("kind")
    first, second, other = (i for i in range(4) if i != decides)
    trials = np.full((12, 4), np.nan)
    trials[:, decides] = np.arange(12) % 2
    trials[0::2, [first, second]] = np.linspace(0, 1, 12).reshape(6, 2)
    trials[1::2, other] = np.linspace(0, 1, 6)
    unordered = np.arange(4) == decides
    rules = {i: learn_rule(trials, i, unordered) for i in range(4)}
    assert {i: rule.parent for i, rule in rules.items()} == {
        decides: None, first: decides, second: decides, other: decides
    }  # fmt: skip
    for i in range(4):
        assert (rules[i].active(trials) == ~np.isnan(trials[:, i])).all()


def test_an_earlier_study_leads_the_next_one():
    def objective(shift):
        def value(trial):
            x = [trial.suggest_float(f"x{i}", 0, 1) for i in range(4)]
            return 100 * shift + sum((v - 0.7 - shift) ** 2 for v in x)

        return value

    earlier = _best(RLMSampler(seed=0), objective(0.0), 30)
    led = [
        _best(RLMSampler(seed=s, warm_start=[earlier]), objective(0.02), 6).best_value
        for s in (1, 2)
    ]
    alone = [_best(RLMSampler(seed=s), objective(0.02), 6).best_value for s in (1, 2)]
    assert max(led) < min(alone)
    assert max(led) < 2.05


def test_a_surrogate_that_knows_leads_and_one_that_errs_is_overruled():
    class Oracle:
        def __init__(self, sign):
            self.sign = sign

        def predict(self, task, candidates, *, observed=()):
            value = np.array([self.sign * c.config["x"] for c in candidates], dtype=float)
            ones = np.ones(len(value))
            return Prediction(
                metric=task.metric,
                median=value,
                low=value - 1,
                high=value + 1,
                spread=ones,
                p_valid=ones,
                log_scale=False,
            )

    def objective(trial):
        return trial.suggest_int("x", 0, 200)

    def describe(params):
        return {"size": float(params["x"])}

    right = RLMSampler(describe=describe, surrogate=Oracle(1.0), seed=0)
    assert _best(right, objective, 5).best_value <= 10
    wrong = RLMSampler(describe=describe, surrogate=Oracle(-1.0), seed=0)
    assert _best(wrong, objective, 25).best_value <= 10


def test_descriptions_of_every_kind_are_read():
    networks = pytest.importorskip("autotune_rlm.networks")
    pytest.importorskip("onnx")
    known = networks.space("nasbench_macro")

    def objective(trial):
        config = {n: trial.suggest_categorical(n, v) for n, v in known.parameters.items()}
        return abs(known.costs(config)["parameters"] - 1_000_000)

    for describe in (known, known.graph, known.text, known.costs, lambda params: None):
        study = _best(RLMSampler(describe=describe, surrogate=False, seed=0), objective, 6)
        assert len(study.trials) == 6


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="n_startup_trials"):
        RLMSampler(n_startup_trials=-1)
    two = optuna.create_study(directions=["minimize"] * 2)
    for x in range(3):
        two.add_trial(
            optuna.create_trial(
                params={"x": x},
                distributions={"x": optuna.distributions.IntDistribution(0, 9)},
                values=[x, x],
            )
        )
    with pytest.raises(ValueError, match="warm_start"):
        _best(RLMSampler(warm_start=[two]), lambda t: t.suggest_int("x", 0, 9), 4)


def test_threads_share_a_sampler():
    study = optuna.create_study(sampler=RLMSampler(seed=0))
    errors = []

    def work():
        try:
            study.optimize(_mixed, n_trials=4)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert len(study.trials) == 12


def test_journal_storage(tmp_path):
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(storage=storage, sampler=RLMSampler(seed=0))
    study.optimize(_mixed, n_trials=9)
    assert len(study.trials) == 9


def test_no_torch_is_needed():
    code = (
        "import sys, importlib.abc\n"
        "class NoTorch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch': raise ImportError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "import optuna; from autotune_rlm.integrations.optuna import RLMSampler\n"
        "s = optuna.create_study(sampler=RLMSampler(seed=0))\n"
        "s.optimize(lambda t: t.suggest_float('x', 0, 1), n_trials=9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
