"""Memory of programs never seen, before they run: the model beside a ridge on TF-IDF and their length.

    python benchmarks/program_memory.py FOLDER/programs/reasoning_gym.jsonl.gz
    python benchmarks/program_memory.py RECORDING --surrogate FOLDER --calibrate

The recording is that of ``autotune-rlm record --programs``. Judged on programs that no recipe trains on
(``reserve: 0.2``, by program, or by problem where it has several solutions): on the half of them that no
interval was chosen on, with ``--all`` on all. Spearman's rank correlation over single runs and over
programs (medians of their inputs), and the share of runs within the 90 % interval. The ridge is fitted
to the other programs, on words and sizes. ``--calibrate`` writes into the checkpoint's ``config.json``
by how much its intervals must be wider or narrower, as the other half of the reserved programs says.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.sparse import csr_matrix, hstack
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import Ridge

from autotune_rlm.landscapes import Landscape, read_landscapes
from autotune_rlm.landscapes.programs import is_reserved_program, program_landscapes
from autotune_rlm.surrogate import load_surrogate

SIZES = ("items", "characters", "largest", "depth")
RIDGE = (0.3, 1.0, 3.0)


def by_program(landscape: Landscape, values: np.ndarray) -> np.ndarray:
    """Medians over the runs of each program."""
    _, program = np.unique([str(c.payload) for c in landscape.candidates], return_inverse=True)
    return np.array([np.median(values[program == i]) for i in range(program.max() + 1)])


def ridge(train: Landscape, test: Landscape) -> np.ndarray:
    """Predicted logarithms, of the best of three strengths on a part of the training programs."""
    words = TfidfVectorizer(
        token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 3), sublinear_tf=True, min_df=2
    )
    texts = {c.text for c in train.candidates}
    words.fit(texts)

    def features(landscape: Landscape) -> csr_matrix:
        distinct = list(dict.fromkeys(c.text for c in landscape.candidates))
        place = {text: i for i, text in enumerate(distinct)}
        rows = words.transform(distinct)[[place[c.text] for c in landscape.candidates]]
        sizes = [
            [np.log1p(abs(float(c.config.get(s) or 0))) for s in SIZES]
            for c in landscape.candidates
        ]
        return hstack([rows, csr_matrix(np.array(sizes) / 10.0)]).tocsr()

    x, y = features(train), np.log1p(train.values)
    inner = np.array([hash(str(c.payload)) % 5 == 0 for c in train.candidates])
    errors = [
        np.mean((Ridge(alpha=a).fit(x[~inner], y[~inner]).predict(x[inner]) - y[inner]) ** 2)
        for a in RIDGE
    ]
    return np.asarray(Ridge(alpha=RIDGE[int(np.argmin(errors))]).fit(x, y).predict(features(test)))


def calibrate(folder: Path, landscapes: list[Landscape]) -> None:
    """Choose the width of each metric's intervals so that 90 % of the values lie inside."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for scale in config["settings"]["numbers"].values():
        scale["width"] = 1.0
    path.write_text(json.dumps(config, indent=2) + "\n")
    surrogate = load_surrogate(folder)
    for one in landscapes:
        told = surrogate.predict(one.task, one.candidates)
        off = np.log1p(one.values) - np.log1p(told.median)
        side = np.where(off < 0, told.low, told.high)
        ratio = np.abs(off) / np.abs(np.log1p(side) - np.log1p(told.median))
        width = float(np.quantile(ratio, 0.9))
        config["settings"]["numbers"][one.task.metric]["width"] = round(width, 3)
    path.write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("--surrogate", help="checkpoint; default: the bundled one")
    parser.add_argument("--metric", action="append", help="default: peak_bytes and call_bytes")
    parser.add_argument("--no-ridge", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--all", action="store_true", help="judge on the half for calibration too")
    args = parser.parse_args()
    recorded = read_landscapes(args.recording)
    metrics = args.metric or ["peak_bytes", "call_bytes"]
    kept = [x for x in recorded if not is_reserved_program(x.task, 0.2)]
    reserved = [x for x in recorded if is_reserved_program(x.task, 0.2)]
    if args.calibrate:
        first = [x for x in reserved if is_reserved_program(x.task, 0.1)]
        calibrate(Path(args.surrogate), program_landscapes(first, metrics=metrics))
    judged = [x for x in reserved if args.all or not is_reserved_program(x.task, 0.1)]
    surrogate = load_surrogate(args.surrogate)
    train = {x.id: x for x in program_landscapes(kept, metrics=metrics)}
    printed = Table("metric", "runs", "who", "Spearman, runs", "programs", "within 90 %")
    for test in program_landscapes(judged, metrics=metrics):
        told = surrogate.predict(test.task, test.candidates)
        within = (test.values >= told.low) & (test.values <= told.high)
        scores = {"model": told.median, "length": np.array([len(c.text) for c in test.candidates])}
        if not args.no_ridge:
            scores["ridge"] = ridge(train[test.id], test)
        for who, score in scores.items():
            printed.add_row(
                test.id,
                str(len(test)),
                who,
                f"{spearmanr(score, test.values).statistic:.3f}",
                f"{spearmanr(by_program(test, score), by_program(test, test.values)).statistic:.3f}",
                f"{within.mean():.1%}" if who == "model" else "",
            )
    Console(width=120).print(printed)


if __name__ == "__main__":
    main()
