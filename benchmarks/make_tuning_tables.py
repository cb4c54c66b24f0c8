"""Tables of real model tuning: each grid point of a scikit-learn model, trained and cross-validated.

    python benchmarks/make_tuning_tables.py benchmarks/tuning_tables.json   # ten minutes on one core

The file holds a line per table: its parameters as grids, and for each point in lexicographic order the
error and the size of the trained model. The error is the mean over the folds: of classifiers the share of
wrong labels, of regressors the root mean squared error over the targets' standard deviation. The size
is a number of support vectors, nodes of trees, coefficients that are not zero, or weights. Tables that
the file already holds are kept, so that an interrupted run goes on.
"""

import argparse
import itertools
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn import datasets, ensemble, linear_model, neighbors, neural_network, svm, tree
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import Nystroem
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler


def scaled(model):
    return make_pipeline(StandardScaler(), model)


@dataclass(frozen=True)
class Problem:
    """A data set, a grid and a model.

    Attributes:
        data: Inputs and targets.
        grid: By parameter either the names to choose from, or (low, high, step) of a number.
        model: Grid point to an estimator that is not fitted.
        size: Fitted estimator to its size.
        classes: Whether the targets are labels.
        folds: Folds of the cross-validation.
    """

    data: Callable[[], tuple[np.ndarray, np.ndarray]]
    grid: dict[str, Any]
    model: Callable[..., Any]
    size: Callable[[Any], float]
    classes: bool = True
    folds: int = 3


def some(load, n, seed=11):
    def data():
        x, y = load(return_X_y=True)
        rows = np.random.default_rng(seed).permutation(len(x))[:n]
        return x[rows], y[rows]

    return data


def standard(load):
    def data():
        x, y = load()
        return x, (y - y.mean()) / y.std()

    return data


def vectors(model):
    return float(len(model[-1].support_))


def nodes(model):
    trees = np.ravel(model.estimators_) if hasattr(model, "estimators_") else [model]
    return float(sum(t.tree_.node_count for t in trees))


def coefficients(model):
    return float(np.count_nonzero(np.abs(model[-1].coef_) > 1e-8))


def weights(model):
    return float(sum(w.size for w in model[-1].coefs_))


def leaves(model):
    return float(sum(p.get_n_leaf_nodes() for stage in model._predictors for p in stage))


PROBLEMS = {
    "svc-digits": Problem(
        some(datasets.load_digits, 600),
        {"log2_C": (-4, 10, 1), "log2_gamma": (-14, 0, 1), "kernel": ["rbf", "poly", "sigmoid"]},
        lambda log2_C, log2_gamma, kernel: scaled(
            svm.SVC(C=2.0**log2_C, gamma=2.0**log2_gamma, kernel=kernel)
        ),
        vectors,
    ),
    "svr-diabetes": Problem(
        some(datasets.load_diabetes, 442),
        {"log2_C": (-4, 10, 1), "log2_gamma": (-12, 0, 1), "log2_epsilon": (-6, 0, 1)},
        lambda log2_C, log2_gamma, log2_epsilon: scaled(
            svm.SVR(
                C=100 * 2.0**log2_C,
                gamma=2.0**log2_gamma,
                epsilon=100 * 2.0**log2_epsilon,
                max_iter=20000,
            )
        ),
        vectors,
        classes=False,
    ),
    "forest-wine": Problem(
        some(datasets.load_wine, 178),
        {
            "max_depth": (1, 8, 1),
            "max_features": (1, 13, 2),
            "min_samples_leaf": (1, 19, 3),
            "criterion": ["gini", "entropy"],
            "bootstrap": [True, False],
        },
        lambda **p: ensemble.RandomForestClassifier(n_estimators=12, random_state=0, **p),
        nodes,
    ),
    "extra-trees-friedman": Problem(
        lambda: datasets.make_friedman1(300, noise=1.0, random_state=21),
        {
            "max_depth": (2, 16, 2),
            "max_features": (1, 10, 1),
            "min_samples_leaf": (1, 17, 2),
            "bootstrap": [True, False],
        },
        lambda **p: ensemble.ExtraTreesRegressor(n_estimators=12, random_state=0, **p),
        nodes,
        classes=False,
    ),
    "boosting-diabetes": Problem(
        some(datasets.load_diabetes, 442),
        {
            "log2_rate": (-8, 0, 1),
            "max_leaf_nodes": (2, 22, 4),
            "min_samples_leaf": (2, 42, 8),
            "log10_l2": (-3, 3, 2),
        },
        lambda log2_rate, log10_l2, **p: ensemble.HistGradientBoostingRegressor(
            learning_rate=2.0**log2_rate,
            l2_regularization=10.0**log10_l2,
            max_iter=40,
            max_bins=32,
            early_stopping=False,
            random_state=0,
            **p,
        ),
        leaves,
        classes=False,
    ),
    "boosting-moons": Problem(
        lambda: datasets.make_moons(300, noise=0.35, random_state=22),
        {
            "log2_rate": (-8, 0, 1),
            "max_depth": (1, 6, 1),
            "subsample": (0.2, 1.0, 0.2),
            "log2_estimators": (2, 6, 1),
        },
        lambda log2_rate, log2_estimators, **p: ensemble.GradientBoostingClassifier(
            learning_rate=2.0**log2_rate, n_estimators=2**log2_estimators, random_state=0, **p
        ),
        nodes,
    ),
    "mlp-digits": Problem(
        some(datasets.load_digits, 500),
        {
            "log2_width": (2, 7, 1),
            "layers": (1, 3, 1),
            "log10_rate": (-4.0, -1.0, 0.5),
            "log10_alpha": (-5, 1, 2),
            "activation": ["relu", "tanh", "logistic"],
        },
        lambda log2_width, layers, log10_rate, log10_alpha, activation: scaled(
            neural_network.MLPClassifier(
                (2**log2_width,) * layers,
                activation=activation,
                alpha=10.0**log10_alpha,
                learning_rate_init=10.0**log10_rate,
                batch_size=64,
                max_iter=12,
                random_state=0,
            )
        ),
        weights,
        folds=2,
    ),
    "mlp-friedman": Problem(
        standard(lambda: datasets.make_friedman2(300, noise=50.0, random_state=23)),
        {
            "log2_width": (2, 6, 1),
            "log10_rate": (-3.5, -1.0, 0.5),
            "log10_alpha": (-5, 1, 1),
            "log2_batch": (3, 7, 2),
            "activation": ["relu", "tanh"],
        },
        lambda log2_width, log10_rate, log10_alpha, log2_batch, activation: scaled(
            neural_network.MLPRegressor(
                (2**log2_width,),
                activation=activation,
                alpha=10.0**log10_alpha,
                learning_rate_init=10.0**log10_rate,
                batch_size=2**log2_batch,
                max_iter=40,
                random_state=0,
            )
        ),
        weights,
        classes=False,
        folds=2,
    ),
    "neighbours-digits": Problem(
        some(datasets.load_digits, 500),
        {
            "n_neighbors": (1, 24, 1),
            "components": (2, 42, 4),
            "p": (1.0, 3.0, 1.0),
            "weights": ["uniform", "distance"],
        },
        lambda components, **p: make_pipeline(
            PCA(components, random_state=0), neighbors.KNeighborsClassifier(**p)
        ),
        lambda model: float(model[0].n_components_),
    ),
    "logistic-breast-cancer": Problem(
        some(datasets.load_breast_cancer, 569),
        {
            "log2_C": (-12, 8, 1),
            "l1_ratio": (0.0, 1.0, 0.1),
            "class_weight": ["none", "balanced"],
        },
        lambda log2_C, l1_ratio, class_weight: scaled(
            linear_model.LogisticRegression(
                C=2.0**log2_C,
                l1_ratio=l1_ratio,
                solver="saga",
                max_iter=120,
                random_state=0,
                class_weight=None if class_weight == "none" else class_weight,
            )
        ),
        coefficients,
    ),
    "sgd-breast-cancer": Problem(
        some(datasets.load_breast_cancer, 569, seed=12),
        {
            "log10_alpha": (-6, 1, 1),
            "log10_eta0": (-4, 1, 1),
            "loss": ["hinge", "log_loss", "modified_huber"],
            "penalty": ["l2", "l1", "elasticnet"],
            "schedule": ["constant", "invscaling", "adaptive"],
        },
        lambda log10_alpha, log10_eta0, schedule, **p: scaled(
            linear_model.SGDClassifier(
                alpha=10.0**log10_alpha,
                eta0=10.0**log10_eta0,
                learning_rate=schedule,
                max_iter=30,
                random_state=0,
                **p,
            )
        ),
        coefficients,
    ),
    "elastic-net-diabetes": Problem(
        some(datasets.load_diabetes, 442, seed=13),
        {"log2_alpha": (-8, 6, 0.5), "l1_ratio": (0.05, 1.0, 0.05), "degree": (1, 2, 1)},
        lambda log2_alpha, l1_ratio, degree: make_pipeline(
            StandardScaler(),
            PolynomialFeatures(degree, include_bias=False),
            StandardScaler(),
            linear_model.ElasticNet(alpha=2.0**log2_alpha, l1_ratio=l1_ratio, max_iter=300),
        ),
        coefficients,
        classes=False,
    ),
    "kernel-ridge-friedman": Problem(
        lambda: datasets.make_friedman3(250, noise=0.1, random_state=24),
        {
            "log2_alpha": (-16, 4, 1),
            "log2_gamma": (-12, 4, 1),
            "kernel": ["rbf", "laplacian", "polynomial"],
        },
        lambda log2_alpha, log2_gamma, kernel: scaled(
            KernelRidge(alpha=2.0**log2_alpha, gamma=2.0**log2_gamma, kernel=kernel)
        ),
        lambda model: float(len(model[-1].dual_coef_)),
        classes=False,
    ),
    "tree-classification": Problem(
        lambda: datasets.make_classification(
            500, 12, n_informative=6, n_classes=3, flip_y=0.05, random_state=25
        ),
        {
            "max_depth": (1, 15, 2),
            "min_samples_leaf": (1, 41, 4),
            "max_features": (1, 12, 1),
            "criterion": ["gini", "entropy"],
        },
        lambda **p: tree.DecisionTreeClassifier(random_state=0, **p),
        nodes,
    ),
    "nystroem-ridge-friedman": Problem(
        lambda: datasets.make_friedman1(400, noise=0.5, random_state=26),
        {
            "log2_gamma": (-10, 2, 1),
            "log2_components": (2, 7, 1),
            "log10_alpha": (-6, 2, 1),
            "kernel": ["rbf", "sigmoid"],
        },
        lambda log2_gamma, log2_components, log10_alpha, kernel: make_pipeline(
            StandardScaler(),
            Nystroem(
                kernel, gamma=2.0**log2_gamma, n_components=2**log2_components, random_state=0
            ),
            linear_model.Ridge(10.0**log10_alpha),
        ),
        lambda model: float(model[-1].coef_.size),
        classes=False,
    ),
}


def is_range(given) -> bool:
    """Whether a parameter's grid is (low, high, step); as JSON it is a list, too."""
    return len(given) == 3 and not isinstance(given[0], (str, bool))


def values_of(given) -> list[Any]:
    if not is_range(given):
        return list(given)
    low, high, step = given
    return [round(low + i * step, 9) for i in range(round((high - low) / step) + 1)]


def judge(problem: Problem, x, y, point: dict[str, Any]) -> tuple[float | None, float | None]:
    split = (StratifiedKFold if problem.classes else KFold)(
        problem.folds, shuffle=True, random_state=3
    )
    errors, sizes = [], []
    for train, test in split.split(x, y):
        model = problem.model(**point)
        try:
            model.fit(x[train], y[train])
            found = model.predict(x[test])
        except Exception:  # a solver that does not converge: the trial fails
            return None, None
        if problem.classes:
            errors.append(float(np.mean(found != y[test])))
        else:
            errors.append(float(np.sqrt(np.mean((found - y[test]) ** 2)) / y.std()))
        sizes.append(problem.size(model))
    error = float(np.mean(errors))
    return (float(f"{error:.5g}"), float(f"{np.mean(sizes):.5g}")) if error < 1e6 else (None, None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", choices=list(PROBLEMS))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    done = {}
    if args.out.exists():
        done = {t["name"]: t for t in map(json.loads, args.out.read_text().splitlines())}
    for name, problem in PROBLEMS.items():
        if name in done or (args.only and name not in args.only):
            continue
        x, y = problem.data()
        x, y = x.astype(np.float64), np.asarray(y)
        grids = {key: values_of(given) for key, given in problem.grid.items()}
        points = [dict(zip(grids, v, strict=True)) for v in itertools.product(*grids.values())]
        errors, sizes = zip(*(judge(problem, x, y, p) for p in points), strict=True)
        table = {"name": name, "grid": problem.grid, "error": errors, "size": sizes}
        with args.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(table, separators=(",", ":")) + "\n")
        known = [e for e in errors if e is not None]
        print(
            name,
            len(points),
            "points, best",
            min(known),
            "median",
            float(np.median(known)),
            flush=True,
        )


if __name__ == "__main__":
    main()
