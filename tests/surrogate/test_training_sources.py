"""What recipes read besides landscape files: stores, and tables of texts and numbers."""

from __future__ import annotations

import csv
import dataclasses
import json

import numpy as np
import pytest
import yaml
from scipy.stats import spearmanr
from surrogate_support import make_landscape

from autotune_rlm.landscapes.regression import read_regression_table
from autotune_rlm.store import Store
from autotune_rlm.surrogate import load
from autotune_rlm.training.recipe import Source
from autotune_rlm.training.run import read_source, run_recipe

COLUMNS = ["space", "input", "target", "metric_type", "metadata"]


def program(n: int) -> str:
    return "def work(x):\n" + "    x = sort(x)\n" * n + "    return x\n"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "programs.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for i in range(60):
            n = 1 + i % 12
            facts = json.dumps({"device": "RTX A6000", "language": "Python", "lines": n + 2})
            rows.writerow(["KBSS", program(n), 2.0 ** (n / 2), "latency", facts])
        rows.writerow(["KBSS", "", 1.0, "latency", "{}"])
        rows.writerow(["KBSS", "x = 1", "nan", "latency", "{}"])
        rows.writerow(["KBSS", "x = 1", 3.0, "val_accuracy", "no JSON"])
    return path


def test_rows_become_landscapes_of_one_text(table):
    found = read_regression_table(table)
    assert len(found) == 61  # the empty text and the NaN hold nothing to learn
    first, last = found[0], found[-1]
    assert first.task.source == program(1)
    assert first.task.device.name == "NVIDIA RTX A6000"
    assert first.task.language == "python"
    assert first.task.problem == {"lines": 3}
    assert first.values.tolist() == [pytest.approx(2**0.5)]
    assert (first.task.minimize, last.task.minimize) == (True, False)
    assert len(read_regression_table(table, limit=5)) == 5


def test_numbers_of_any_sign_and_metadata_as_python_writes_it(tmp_path):
    path = tmp_path / "paper.csv"
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerow(["CDSS", "int f() {}", 0, "memory", "{'language': 'C++', 'lines': 3}"])
        rows.writerow(["CDSS", "f()", -2.5, "change", "{'language': __import__('os')}"])
    zero, negative = read_regression_table(path)
    assert zero.values.tolist() == [0.0]
    assert (zero.task.language, zero.task.problem) == ("c++", {"lines": 3})
    assert negative.values.tolist() == [-2.5]
    assert negative.task.language == "text"  # nothing is executed


def test_networks_with_a_column_per_number(tmp_path):
    path = tmp_path / "graphs.jsonl"
    row = {"space": "NDS", "input": "Conv(1)", "val_accuracy": 91.5, "flops": 3e8, "params": 12}
    path.write_text(json.dumps({**row, "metadata": "{'stem': 16}"}) + "\n", encoding="utf-8")
    found = {x.task.metric: x for x in read_regression_table(path)}
    assert {m: float(x.values[0]) for m, x in found.items()} == {
        "val_accuracy": 91.5, "flops": 3e8, "params": 12.0,
    }  # fmt: skip
    assert not found["val_accuracy"].task.minimize
    assert found["flops"].task.problem == {"stem": 16}


def test_a_table_without_a_column_is_refused(tmp_path):
    (tmp_path / "odd.csv").write_text("space,input,target\na,b,1\n")
    with pytest.raises(ValueError, match="'metric_type' is missing"):
        read_regression_table(tmp_path / "odd.csv")
    (tmp_path / "odd.txt").write_text("")
    with pytest.raises(ValueError, match="parquet"):
        read_regression_table(tmp_path / "odd.txt")


def test_a_surrogate_learns_the_number_of_an_unseen_text(table, tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer.json")
    recipe = {
        "name": "texts",
        "tokenizer": "tokenizer.json",
        "steps": 400,
        "warmup": 10,
        "tasks": 16,
        "candidates": 1,
        "lr": 5e-3,
        "average": 0.9,
        "network": {"d_model": 32, "heads": 2, "d_ff": 64, "decoder_layers": 2, "max_source": 256},
        "sources": [{"path": "programs.csv", "format": "regression"}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    folder = run_recipe(
        tmp_path / "recipe.yaml", out=tmp_path / "out", device="cpu", progress=False
    )
    surrogate = load(folder)
    (example,) = [x for x in read_regression_table(table) if x.task.source == program(7)][:1]
    predicted = []
    for n in range(1, 13):
        text = program(n).replace("work", "other_name")
        task = dataclasses.replace(example.task, source=text, problem={"lines": n + 2})
        predicted.append(float(surrogate.predict(task, example.candidates).median[0]))
    assert spearmanr(predicted, np.arange(12)).statistic > 0.7
    assert predicted[-1] > 2 * predicted[0]


def test_a_store_is_a_source(tmp_path):
    landscape = make_landscape(512)
    with Store(tmp_path / "store.db") as store:
        for observation in landscape.observations:
            store.add(landscape.task, observation.candidate, observation.measurement)
    (found,) = read_source(Source(path="store.db", format="store"), tmp_path)
    assert sorted(found.values[found.ok]) == sorted(landscape.values[landscape.ok])


def test_an_unknown_format_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="'regression'"):
        read_source(Source(path="x", format="pickle"), tmp_path)


def test_a_task_without_parameters_is_known_by_language_and_metric(table):
    from autotune_rlm.surrogate.known import doubt, knows, trained_on

    landscapes = read_regression_table(table)
    settings = trained_on(landscapes)
    first = landscapes[0]
    assert knows(settings, first.task, first.candidates)
    assert doubt(settings, first.task, first.candidates).scale == 0
    for changed in ({"language": "rust"}, {"metric": "memory"}):
        other = dataclasses.replace(first.task, **changed)
        assert not knows(settings, other, first.candidates)
