"""Texts, absolute numbers, several targets and the compiler's facts, from recipe to prediction."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import spearmanr
from surrogate_support import make_landscape, make_task

from autotune_rlm.integrations.onnx import predict
from autotune_rlm.landscapes import Landscape, write_landscapes
from autotune_rlm.landscapes.columns import column_task
from autotune_rlm.landscapes.programs import is_reserved_program, program_landscapes, program_task
from autotune_rlm.networks.rendering import network_candidate
from autotune_rlm.networks.spaces import space
from autotune_rlm.surrogate import load
from autotune_rlm.surrogate.checkpoint import Checkpoint, save_checkpoint
from autotune_rlm.surrogate.metrics import ErrorScale, NumberScale, symlog
from autotune_rlm.surrogate.network import Network, NetworkConfig
from autotune_rlm.surrogate.rlm import RLMSurrogate
from autotune_rlm.training.run import grow, run_recipe
from autotune_rlm.types import Candidate, Measurement, Status, Task

SIZES = {"d_model": 32, "heads": 2, "d_ff": 64, "decoder_layers": 2, "max_source": 64}
METRICS = ["slowdown", "scale", "shared_bytes", "registers", "spills", "compile_s", "number"]
READING = {"text_words": 512, "text_layers": 1, "max_text": 128, "metrics": METRICS}


def written(tmp_path, tokenizer, **recipe):
    """A recipe's file beside its tokenizer."""
    tokenizer.save(tmp_path / "tokenizer.json")
    basis = {"tokenizer": "tokenizer.json", "warmup": 10, "tasks": 4, "candidates": 24, "texts": 24}
    path = tmp_path / f"{recipe['name']}.yaml"
    path.write_text(yaml.safe_dump({**basis, "lr": 4e-3, "average": 0.9, **recipe}))
    return path


def program(lines: int, name: str = "x") -> str:
    return f"def {name}(n):\n" + f"    {name} = [0] * n\n" * lines


def recorded_program(lines: int, *, group: str = "") -> Landscape:
    """Memory grows with the number of lines and with the size of the input."""
    task = Task(
        kernel=f"program {lines}",
        device=make_task().device,
        language="python",
        problem={"group": group or f"program {lines}"},
        source=program(lines),
        metric="peak_bytes",
    )
    sizes = (10, 100, 1000)
    measurements = [
        Measurement(status=Status.OK, value=8.0 * lines**2 * n, facts={"call_bytes": 8.0 * n})
        for n in sizes
    ]
    candidates = [Candidate({"items": n, "input #": i}) for i, n in enumerate(sizes)]
    return Landscape(task, tuple(candidates), tuple(measurements))


@pytest.fixture(scope="module")
def memory_model(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("programs")
    write_landscapes(folder / "programs.jsonl", [recorded_program(n) for n in range(1, 15)])
    source = {"path": "programs.jsonl", "format": "programs", "texts": True, "numbers": True}
    recipe = written(
        folder,
        tokenizer,
        name="programs",
        steps=250,
        network={**SIZES, **READING},
        sources=[source],
    )
    return load(run_recipe(recipe, out=folder / "out", device="cpu", progress=False))


def test_memory_is_told_by_a_program_that_was_never_seen(memory_model):
    task = program_task(recorded_program(1).task, "peak_bytes")
    lines = np.arange(1, 15)
    unseen = [Candidate({"items": 100}, program(int(n), "other")) for n in lines]
    told = memory_model.predict(task, unseen)
    assert spearmanr(told.median, lines).statistic > 0.7
    assert told.log_scale
    assert (told.low < told.median).all()
    assert (told.median < told.high).all()
    more = memory_model.predict(task, [Candidate({"items": n}, program(5)) for n in (10, 1000)])
    assert more.median[1] > 5 * more.median[0]
    nothing = memory_model.predict(task, [Candidate({}, program(2)), Candidate({}, program(14))])
    assert nothing.median[1] > 2 * nothing.median[0]


def test_order_and_company_of_texts_change_nothing(memory_model):
    task = program_task(recorded_program(1).task, "peak_bytes")
    many = [Candidate({"items": 7}, program(1 + n % 5, f"p{n}")) for n in range(40)]
    told = memory_model.predict(task, many).median
    back = memory_model.predict(task, many[::-1]).median[::-1]
    alone = [memory_model.predict(task, [c]).median[0] for c in many[:3]]
    np.testing.assert_allclose(told, back, rtol=1e-4)
    np.testing.assert_allclose(told[:3], alone, rtol=1e-4)


def test_a_language_that_was_not_read_in_training_is_read_by_its_parameters_alone(memory_model):
    task = dataclasses.replace(program_task(recorded_program(1).task, "peak_bytes"), language="go")
    told = memory_model.predict(task, [Candidate({"items": 7}, program(n)) for n in (1, 14)])
    assert told.median[0] == told.median[1]


def test_programs_of_one_group_are_reserved_together():
    tasks = [recorded_program(n, group=f"problem {n // 4}").task for n in range(40)]
    kept = [is_reserved_program(t, 0.5) for t in tasks]
    assert all(len({kept[i] for i in range(40) if i // 4 == g}) == 1 for g in range(10))
    assert 0 < sum(kept) < 40


def test_runs_of_programs_are_candidates_of_one_task_for_each_metric():
    found = program_landscapes(
        [recorded_program(n) for n in (1, 2)], metrics=("peak_bytes", "call_bytes")
    )
    assert [x.task.metric for x in found] == ["peak_bytes", "call_bytes"]
    assert [len(x) for x in found] == [6, 6]
    assert found[0].candidates[0].text == program(1)
    assert "input #" not in found[0].candidates[0].config
    assert found[1].values[2] == 8000.0


@pytest.mark.parametrize("kind", ["number"])
def test_any_finite_number_is_on_the_scale_and_back(kind):
    values = np.array([-1e300, -7.5, -1e-9, 0.0, 1e-12, 3.0, 1e8, 1e25])
    scale = ErrorScale(kind)
    small = values[np.abs(values) <= 1e25]
    np.testing.assert_allclose(
        scale.from_error(scale.to_error(small)), small, rtol=1e-9, atol=1e-12
    )
    assert (np.diff(symlog(values)) >= 0).all()
    assert np.isfinite(NumberScale.of(values).position(values)).all()


def networks_table(tmp_path, n: int) -> None:
    cells = space("nasbench201")
    rng = np.random.default_rng(0)
    rows = []
    for config in [cells.sample(rng) for _ in range(n)]:
        size = np.log(cells.facts(config).macs)
        arch = "|" + "|+|".join(
            "|".join(f"{config[f'e{a}{b}']}~{a}" for a in range(b)) for b in range(1, 4)
        ) + "|"  # fmt: skip
        rows.append([arch, 60 + 2 * size, np.exp(size - 15), np.exp(0.5 * size)])
    with (tmp_path / "cells.csv").open("w", newline="") as file:
        header = ["arch_str", "c10_val_ep200", "help_gold_6240", "help_1080ti_1"]
        csv.writer(file).writerows([header, *rows])


def test_accuracy_and_latencies_are_written_in_one_sequence(tmp_path, tokenizer):
    networks_table(tmp_path, 60)
    source = {"path": "cells.csv", "format": "architectures", "sequence": True}
    sizes = {**SIZES, **READING, "sequences": True}
    recipe = written(tmp_path, tokenizer, name="cells", steps=300, network=sizes, sources=[source])
    surrogate = load(run_recipe(recipe, out=tmp_path / "out", device="cpu", progress=False))
    cells = space("nasbench201")
    configs = [cells.sample(np.random.default_rng(i)) for i in range(100, 130)]
    candidates = [network_candidate(cells.fields(c), c, text=cells.text(c)) for c in configs]
    size = [np.log(cells.facts(c).macs) for c in configs]
    columns = ("c10_val_ep200", "help_gold_6240", "help_1080ti_1")
    tasks = [column_task(c, "nasbench201") for c in columns]
    assert surrogate.longest_sequence == 8
    told = surrogate.predict_several(tasks, candidates)
    assert [t.metric for t in told] == ["accuracy", "latency_ms", "latency_ms"]
    for one in told:
        assert spearmanr(one.median, size).statistic > 0.8
    assert np.median(told[2].median / told[1].median) > 1.5
    with pytest.raises(ValueError, match="one kernel"):
        surrogate.predict_several([tasks[0], make_task()], candidates)


def test_facts_of_the_compiler_are_read_where_they_were_in_training(tmp_path, tokenizer):
    """The parameter's name says nothing here: only the facts tell which candidate is fast."""

    def landscape(seed: int) -> Landscape:
        rng = np.random.default_rng(seed)
        candidates, measurements = [], []
        for i in range(24):
            time = float(np.exp(rng.uniform(0, 3)))
            facts = {"roofline_ms": 0.1 * time, "dot_ms": 0.1 * time, "registers": 32.0}
            candidates.append(Candidate({"variant": i}, facts=facts))
            measurements.append(Measurement(status=Status.OK, value=time))
        task = make_task(256 + seed)
        return Landscape(task, tuple(candidates), tuple(measurements), f"facts {seed}")

    write_landscapes(tmp_path / "facts.jsonl", [landscape(s) for s in range(30)])
    recipe = written(
        tmp_path,
        tokenizer,
        name="facts",
        steps=200,
        network=SIZES,
        sources=[{"path": "facts.jsonl"}],
    )
    surrogate = load(run_recipe(recipe, out=tmp_path / "out", device="cpu", progress=False))
    assert surrogate.checkpoint.settings["facts"] is True
    unseen = landscape(99)
    told = surrogate.predict(unseen.task, unseen.candidates)
    assert spearmanr(told.median, unseen.values).statistic > 0.9
    bare = [Candidate(c.config) for c in unseen.candidates]
    assert (
        abs(spearmanr(surrogate.predict(unseen.task, bare).median, unseen.values).statistic) < 0.6
    )


def test_a_grown_network_says_what_the_smaller_one_said(surrogate, tokenizer):
    small = surrogate.checkpoint.network
    sizes = {**small.config.to_json(), **READING, "sequences": True, "max_metrics": 8}
    config = NetworkConfig.from_json({**sizes, "metrics": [*small.config.metrics, "number"]})
    torch.manual_seed(1)
    large = Network(config).eval().requires_grad_(False)
    grow(large, small)
    grown = RLMSurrogate(Checkpoint("grown", large, tokenizer, {}))
    landscape = make_landscape(512)
    before = surrogate.predict(landscape.task, landscape.candidates)
    after = grown.predict(landscape.task, landscape.candidates)
    np.testing.assert_allclose(after.median, before.median, rtol=1e-5)
    with pytest.raises(ValueError, match="does not fit"):
        grow(small, large)


def test_parts_that_the_first_checkpoint_lacks_come_from_the_second(
    surrogate, tokenizer, memory_model, tmp_path
):
    """Kernels as the one had them, programs as the other: nothing of the first is lost where only
    the new parts are trained."""
    small = surrogate.checkpoint.network
    first = save_checkpoint(tmp_path / "first", small, tokenizer, name="first")
    write_landscapes(tmp_path / "programs.jsonl", [recorded_program(n) for n in range(1, 9)])
    source = {"path": "programs.jsonl", "format": "programs", "texts": True, "numbers": True}
    sizes = {**small.config.to_json(), **READING, "metrics": [*small.config.metrics, "number"]}
    recipe = written(
        tmp_path, tokenizer, name="both", steps=3, network=sizes, sources=[source], only=["text."]
    )
    both = load(run_recipe(recipe, out=tmp_path / "out", start=first, device="cpu", progress=False))
    landscape = make_landscape(512)
    before = load(first).predict(landscape.task, landscape.candidates)
    after = both.predict(landscape.task, landscape.candidates)
    np.testing.assert_allclose(after.median, before.median, rtol=1e-3)
    assert both.checkpoint.settings["texts"] == [["python", "peak_bytes"]]
    assert set(both.checkpoint.settings["numbers"]) == {"peak_bytes"}


def test_the_bundled_model_reads_texts_and_writes_sequences():
    surrogate, cells = load("nano"), space("nasbench201")
    configs = [cells.sample(np.random.default_rng(i)) for i in range(3)]
    accuracy = column_task("c10_val_ep200", "nasbench201", named=False)
    told = surrogate.predict(accuracy, [Candidate({}, text=cells.text(c)) for c in configs])
    assert len(set(told.median.tolist())) == 3
    model = cells.model(configs[0])
    several = predict(model, devices=["1080ti", "pixel3", "NVIDIA H100"])
    assert list(several) == ["accuracy", "1080ti", "pixel3", "NVIDIA H100"]
    alone = predict(model, device="pixel3")
    assert 0.8 < several["pixel3"].median[0] / alone.median[0] < 1.25
    with pytest.raises(ValueError, match="devices"):
        predict(model, "accuracy", devices=["pixel3"])
