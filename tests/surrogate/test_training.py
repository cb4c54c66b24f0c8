from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from surrogate_support import make_candidates, make_landscape, make_task

from autotune_rlm.landscapes import Landscape, write_landscapes
from autotune_rlm.surrogate import load
from autotune_rlm.surrogate.fields import FieldTable
from autotune_rlm.surrogate.network import Network
from autotune_rlm.training.examples import Sampler, encode_landscape, is_held_out
from autotune_rlm.training.finetune import (
    FineTuneOptions,
    Versions,
    fine_tune,
    log_error,
    rank_accuracy,
)
from autotune_rlm.training.loss import soft_targets
from autotune_rlm.training.mining import favourites
from autotune_rlm.training.prompts import live_renderings
from autotune_rlm.training.recipe import Holdout, Recipe
from autotune_rlm.training.run import run_recipe
from autotune_rlm.types import Candidate, Measurement

SIZES = (256, 512, 1024, 2048, 3072, 4096)


@pytest.fixture
def recipe_file(tmp_path, tokenizer):
    write_landscapes(tmp_path / "data.csv", [make_landscape(s, seed=s) for s in SIZES])
    tokenizer.save(tmp_path / "tokenizer.json")
    recipe = {
        "name": "tiny",
        "tokenizer": "tokenizer.json",
        "steps": 100,
        "warmup": 10,
        "tasks": 4,
        "candidates": 24,
        "lr": 3e-3,
        "average": 0.9,
        "network": {"d_model": 32, "heads": 2, "d_ff": 64, "decoder_layers": 2, "max_source": 256},
        "sources": [{"path": "data.csv", "live": True}],
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def test_training_learns_to_rank_an_unseen_size(recipe_file, tmp_path):
    folder = run_recipe(recipe_file, out=tmp_path / "out", device="cpu", progress=False)
    surrogate = load(folder)
    unseen = make_landscape(1536, seed=99)
    assert rank_accuracy(surrogate, [unseen]) > 0.9
    prediction = surrogate.predict(unseen.task, unseen.candidates)
    assert unseen.values[int(prediction.order()[0])] < 1.3 * unseen.best


def test_an_interrupted_training_goes_on(recipe_file, tmp_path):
    run_recipe(recipe_file, out=tmp_path / "out", device="cpu", steps=5, progress=False)
    first = json.loads((tmp_path / "out" / "training" / "progress.json").read_text())
    assert first["step"] == 5
    run_recipe(recipe_file, out=tmp_path / "out", device="cpu", steps=12, progress=False)
    second = json.loads((tmp_path / "out" / "training" / "progress.json").read_text())
    assert second["step"] == 12
    assert second["losses"][:5] == first["losses"]


def test_two_processes_train_one_network(recipe_file, tmp_path):
    """``accelerate launch``: each draws batches of its own, and both end with the same weights."""
    program = tmp_path / "train.py"
    program.write_text(
        textwrap.dedent(
            """
            import sys
            from autotune_rlm.training import run

            train_network = run.train_network

            def told(*args, **options):
                state = train_network(*args, **options)
                weights = [float(p.detach().double().abs().sum()) for p in state.network.parameters()]
                print("weights", sum(weights), "losses", state.losses, flush=True)
                return state

            run.train_network = told
            run.run_recipe(*sys.argv[1:2], out=sys.argv[2], device="cpu", steps=10, progress=False)
            """
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", "2", "--num_machines", "1", "--main_process_port", port]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    done = subprocess.run(
        [*launch, str(program), str(recipe_file), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (line for line in done.stdout.splitlines() if line.startswith("weights"))
    assert first.split(" losses ")[0] == second.split(" losses ")[0]
    assert first.split(" losses ")[1] != second.split(" losses ")[1]
    assert load(tmp_path / "out").name == "tiny"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 3", "'name' and 'sources'"),
        ("sources: []\nstep: 3", "unknown key 'step'"),
        ("sources: [{file: x}]", "unknown key 'file'"),
    ],
)
def test_malformed_recipes_name_the_mistake(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.load(path)


def test_a_recipe_extends_another(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "name: a\nsteps: 7\nnetwork: {d_model: 64, heads: 2}\nsources: [{path: x}]\n"
    )
    (tmp_path / "b.yaml").write_text("extends: a.yaml\nname: b\nnetwork: {d_model: 96}\n")
    recipe = Recipe.load(tmp_path / "b.yaml")
    assert (recipe.name, recipe.steps, recipe.sources[0].path) == ("b", 7, "x")
    assert dict(recipe.network) == {"d_model": 96, "heads": 2}
    for other in ("b.yaml", "../a.yaml", "3"):
        (tmp_path / "b.yaml").write_text(f"extends: {other}\n")
        with pytest.raises(ValueError, match="extends must name another recipe"):
            Recipe.load(tmp_path / "b.yaml")


def test_the_recipe_for_gpus_makes_a_larger_network_of_the_same_mixture():
    recipes = Path(__file__).parents[2] / "recipes"
    small, large = (Recipe.load(recipes / f"{name}.yaml") for name in ("nano", "base"))
    assert large.sources == small.sources
    assert large.network_config().metrics == small.network_config().metrics
    with torch.device("meta"):
        sizes = [
            sum(p.numel() for p in Network(r.network_config(), initialise=False).parameters())
            for r in (small, large)
        ]
    assert sizes[1] > 20 * sizes[0]


def test_holding_out_is_by_whole_landscapes():
    landscapes = [make_landscape(s) for s in range(100, 400)]
    kept_out = [is_held_out(x, Holdout(shapes=0.2)) for x in landscapes]
    assert 0.1 < np.mean(kept_out) < 0.3
    assert kept_out == [is_held_out(x, Holdout(shapes=0.2)) for x in landscapes]
    assert is_held_out(landscapes[0], Holdout(devices=("NVIDIA A100",)))
    assert is_held_out(landscapes[0], Holdout(kernels=("matmul",)))
    assert not is_held_out(landscapes[0], Holdout())


def test_soft_targets_are_distributions_with_failure_apart():
    target = soft_targets(torch.tensor([0.0, 5.3, 127.0, -1.0]), 1.5)
    assert torch.allclose(target.sum(1), torch.ones(4))
    assert target[3, 0] == 1.0
    assert target[:3, :2].sum() == 0
    assert target[1].argmax() == 2 + 5


def test_batches_hold_candidates_of_the_drawn_landscapes(tokenizer):
    table = FieldTable()
    examples = [encode_landscape(make_landscape(s), table, tokenizer) for s in SIZES]
    batch = Sampler({"all": (examples, 1.0)}, tasks=5, candidates=16, seed=3).draw()
    again = Sampler({"all": (examples, 1.0)}, tasks=5, candidates=16, seed=3).draw()
    assert (batch.candidates == again.candidates).all()
    assert batch.candidates.shape[:2] == (5, 16)
    assert batch.candidates.max() < len(table)
    known = batch.targets[..., 0][batch.targets[..., 0] > -1.5]
    assert ((known == -1) | (known >= 0)).all()


def test_what_the_network_believes_in_is_drawn_more_often(tokenizer, surrogate):
    task, rng = make_landscape(1024).task, np.random.default_rng(0)
    candidates = [Candidate({"BLOCK": 2 ** (i % 8), "z": i}) for i in range(400)]
    times = [Measurement(status="ok", value=float(v)) for v in rng.uniform(1, 9, 400)]
    large = Landscape(task=task, candidates=tuple(candidates), measurements=tuple(times), id="l")
    table = FieldTable()
    example = encode_landscape(large, table, tokenizer)
    sampler = Sampler({"all": ([example], 1.0)}, tasks=2, candidates=32, seed=0)
    drawn, prompt = sampler.draw_large()
    assert drawn is example
    rows = favourites(surrogate.checkpoint.network, table.tensors(tokenizer), example, prompt)
    believed = surrogate.predict(task, candidates).order()[:64]
    assert len(set(rows.tolist()) & set(believed.tolist())) > 56  # mean and median differ a little

    def share(sampler):
        wanted = {tuple(r) for r in example.index[rows].tolist()}
        drawn = np.concatenate([sampler.draw().candidates.reshape(64, -1) for _ in range(20)])
        return np.mean([tuple(r) in wanted for r in drawn.tolist()])

    before = share(sampler)
    sampler.mine(example, rows)
    assert share(sampler) > before + 0.15
    small = encode_landscape(make_landscape(1024), table, tokenizer)
    assert Sampler({"all": ([small], 1.0)}, tasks=1, candidates=8).draw_large() is None


def test_a_landscape_without_working_candidates_is_no_example(tokenizer):
    landscape = make_landscape()
    failed = landscape.take(~landscape.ok)
    assert encode_landscape(failed, FieldTable(), tokenizer) is None


def test_a_recorded_matmul_is_shown_as_live_kernels():
    tasks = live_renderings(make_task(512))
    assert len(tasks) == 2
    for task in tasks:
        assert "tl.dot" in task.source
        shapes = [v["shape"] for v in task.problem.values() if isinstance(v, dict)]
        assert shapes == [[512, 512]] * 3


def test_fine_tuning_helps_where_it_is_accepted_and_leaves_the_old_alone(surrogate):
    landscapes = [make_landscape(s, seed=s) for s in SIZES]
    before = surrogate.predict(make_task(), make_candidates()).median
    options = FineTuneOptions(steps=60, lr=3e-3, pull=0.0)
    tuned, record = fine_tune(surrogate, landscapes, options=options)
    assert record.accepted
    assert record.after > record.before
    assert tuned is not surrogate
    assert (surrogate.predict(make_task(), make_candidates()).median == before).all()
    unseen = make_landscape(1536, seed=77)
    assert rank_accuracy(tuned, [unseen]) > rank_accuracy(surrogate, [unseen])


def test_a_round_that_forgets_is_rejected(surrogate):
    good = [make_landscape(s, seed=s) for s in SIZES]
    options = FineTuneOptions(steps=80, lr=3e-3, pull=0.0)
    tuned, _ = fine_tune(surrogate, good, options=options)
    rng = np.random.default_rng(0)
    nonsense = []
    for landscape in good:
        shuffled = [landscape.measurements[i] for i in rng.permutation(len(landscape))]
        nonsense.append(type(landscape)(landscape.task, landscape.candidates, tuple(shuffled)))
    harmful = FineTuneOptions(steps=80, lr=3e-3, pull=0.0, replay=0.0)
    kept, record = fine_tune(tuned, nonsense, replay=good, options=harmful)
    assert record.replay_after < record.replay_before
    assert not record.accepted
    assert kept is tuned


def test_single_measurements_are_judged_by_their_numbers(surrogate):
    """Of tasks with one candidate each there is no order to compare: 0.0 is not better than 0.0."""
    sizes = [128 * k for k in range(2, 34)]
    single = [make_landscape(s, seed=s).take(np.arange(1)) for s in sizes]
    good = FineTuneOptions(steps=60, lr=3e-3, pull=0.0)
    tuned, record = fine_tune(surrogate, single, options=good)
    assert (record.before, record.after) == (0.0, 0.0)
    assert record.accepted
    unseen = [make_landscape(s, seed=s).take(np.arange(1)) for s in (1600, 2500)]
    assert log_error(tuned, unseen) < log_error(surrogate, unseen)
    harmful = FineTuneOptions(steps=5, lr=0.3, pull=0.0)
    kept, record = fine_tune(tuned, single, options=harmful)
    assert (record.before, record.after) == (0.0, 0.0)
    assert not record.accepted
    assert kept is tuned


def test_too_little_to_learn_from_is_refused(surrogate):
    with pytest.raises(ValueError, match="at least 8"):
        fine_tune(surrogate, [make_landscape().take(np.arange(5))])


def test_versions_can_be_gone_back_to(tmp_path, surrogate, monkeypatch):
    versions = Versions(tmp_path / "versions")
    monkeypatch.setattr(versions, "load", lambda: surrogate)
    landscapes = [make_landscape(s, seed=s) for s in SIZES]
    options = FineTuneOptions(steps=40, lr=3e-3, pull=0.0)
    record = versions.round(landscapes, options=options)
    assert record.accepted
    assert versions.current == record.version == 1
    assert versions.history()[0]["after"] == record.after
    monkeypatch.undo()
    assert versions.load().name == "tiny"
    versions.use(None)
    assert versions.current is None
    with pytest.raises(ValueError, match="version must be one of"):
        versions.use(7)
