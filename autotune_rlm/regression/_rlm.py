"""``RLM``: text in, number out, with the habits of scikit-learn."""

from __future__ import annotations

import dataclasses
import inspect
import json
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save_file

from autotune_rlm._checks import check_all, check_number
from autotune_rlm.regression._fit import fit_table
from autotune_rlm.regression._inputs import Asked, group_numbers, number_columns
from autotune_rlm.regression._model import RowModel
from autotune_rlm.regression._options import FitOptions
from autotune_rlm.regression._report import FitReport, scores_of
from autotune_rlm.regression._scale import TargetScale
from autotune_rlm.regression._surrogate import SurrogateModel
from autotune_rlm.regression._table_model import TableModel
from autotune_rlm.surrogate.checkpoint import load_checkpoint, save_checkpoint

_TABLE = "table.safetensors"
_SETTING = "table"


class _Model(Protocol):
    """A predictor: a fitted table, the bundled model, or a published checkpoint."""

    @property
    def targets(self) -> tuple[str, ...]: ...

    def quantiles(self, asked: Asked, levels: Sequence[float]) -> np.ndarray: ...

    def sample(self, asked: Asked, draws: int, rng: np.random.Generator) -> np.ndarray: ...

    def log_prob(self, asked: Asked, numbers: np.ndarray) -> np.ndarray: ...


class RLM:
    """A Regression Language Model (arXiv 2509.26476) for texts with a number each.

    ``RLM.load().predict(texts)`` predicts with the bundled model. ``RLM().fit(texts, numbers)`` fits a
    model to a table. A ridge regression on TF-IDF of the texts and on the fields, with boosted trees,
    predicts first. The network, which starts from the bundled weights, decodes the residuals as a
    distribution. A held-out part determines when training stops, how much of the network's correction
    is used, and how wide the intervals are. ``report_`` compares the result with a constant and the
    ridge alone.

    Args:
        base: Folder or name of the checkpoint to start from; None for the bundled one.
        minutes: Wall-clock limit of the network's training in ``fit``; 0 for the ridge alone.
        held_out: Share of the rows that ``fit`` does not learn from. One half of it stops the training
            and calibrates the intervals; the other half only gives the report's scores.
        patience: Evaluations on the held-out part without an improvement after which training ends.
        batch_size: Rows of a training step.
        lr: Peak learning rate.
        max_tokens: Tokens of a text that the network reads; the ridge reads 50,000 characters.
        seed: Of everything random.
        progress: Whether ``fit`` shows how far it is.

    Attributes:
        report_: A ``FitReport``; only after ``fit``.

    Example:
        ```python
        model = RLM(minutes=2).fit(table["code"], table["peak_bytes"], fields=table[["n"]])
        print(model.report_)
        low, median, high = model.predict_quantiles(texts, (0.05, 0.5, 0.95), fields=fields).T
        ```
    """

    def __init__(
        self,
        base: str | Path | None = None,
        *,
        minutes: float = 3.0,
        held_out: float = 0.2,
        patience: int = 8,
        batch_size: int = 48,
        lr: float = 5e-4,
        max_tokens: int = 1024,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        self.base = base
        self.minutes, self.held_out, self.patience = minutes, held_out, patience
        self.batch_size, self.lr, self.max_tokens = batch_size, lr, max_tokens
        self.seed, self.progress = seed, progress
        self._model: _Model | None = None

    @classmethod
    def load(
        cls,
        name_or_path: str | Path | None = None,
        *,
        metric: str | None = None,
        language: str | None = None,
    ) -> RLM:
        """A model that can predict without ``fit``.

        Args:
            name_or_path: What ``save`` wrote, a checkpoint of the package, or the folder of a
                published one (``model_type`` ``"regresslm"``); None for the bundled model.
            metric: The metric that the bundled model predicts, such as ``"peak_bytes"``; None for the
                first that it learned of programs.
            language: What the texts are in, such as ``"python"``; None for the first that it read.

        Raises:
            FileNotFoundError: There is no such checkpoint.
            ValueError: It was written by a newer version, or does not know the metric.
        """
        loaded = cls(name_or_path)
        folder = Path(str(name_or_path)) if name_or_path is not None else None
        if folder is not None and _model_type(folder) == "regresslm":
            from autotune_rlm.regression._published import PublishedModel

            loaded._model = PublishedModel.load(folder, language=language)
            return loaded
        checkpoint = load_checkpoint(name_or_path)
        table = checkpoint.settings.get(_SETTING)
        if isinstance(table, Mapping):
            assert folder is not None
            model = RowModel(
                checkpoint.network,
                checkpoint.tokenizer,
                table["targets"],
                max_tokens=table["max_tokens"],
            )
            arrays = load_file(str(folder / _TABLE))
            loaded._model = TableModel.from_json(table, arrays, model)
            loaded.report_ = FitReport.from_json(table["report"])
        else:
            loaded._model = SurrogateModel(checkpoint, metric=metric, language=language)
        return loaded

    def fit(
        self,
        texts: Any,
        numbers: Any,
        *,
        fields: Any = None,
        groups: Any = None,
        folder: str | Path | None = None,
    ) -> RLM:
        """Fit to a table of n rows.

        Args:
            texts: n texts: a list, a pandas Series.
            numbers: n finite numbers, negative and zero included, NaN where unknown; or several
                targets as a table, columns by name or an array (n, k), decoded one after the other.
            fields: Numbers and short texts beside each text: a table, columns by name, or a mapping a
                row. Missing values may be left out.
            groups: n names; rows of one group are never split between training and held-out part. None
                for one group per distinct text.
            folder: Folder for the state of the training. Called again with the same data, an
                interrupted ``fit`` continues from it.

        Returns:
            The fitted ``RLM`` itself. Each of ``report_.warnings`` is also issued as a warning.

        Raises:
            TypeError: An argument is of the wrong kind.
            ValueError: A number is infinite, the arguments' lengths differ, or there are fewer than 20
                rows or 3 groups.
            ImportError: scikit-learn is not installed.
        """
        options = self._options()
        given = Asked.of(texts, fields)
        names, array = number_columns(numbers, len(given.texts))
        self._model, self.report_ = fit_table(
            load_checkpoint(self.base),
            given.texts,
            given.fields,
            names,
            array,
            group_numbers(groups, given.texts),
            options=options,
            folder=Path(folder) if folder is not None else None,
            progress=self.progress,
        )
        for note in self.report_.warnings:
            warnings.warn(note, stacklevel=2)
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the predicted targets."""
        return self._fitted().targets

    def predict(self, texts: Any, *, fields: Any = None, batch_size: int = 64) -> np.ndarray:
        """The median number of each text, shape (n,), or (n, k) for k targets.

        Args:
            texts: n texts.
            fields: As in ``fit``.
            batch_size: Texts at once.
        """
        medians = self.predict_quantiles(texts, (0.5,), fields=fields, batch_size=batch_size)
        return medians[..., 0]

    def predict_quantiles(
        self,
        texts: Any,
        levels: Sequence[float] = (0.05, 0.5, 0.95),
        *,
        fields: Any = None,
        batch_size: int = 64,
    ) -> np.ndarray:
        """Quantiles of each number, shape (n, levels), or (n, k, levels) for k targets.

        After ``fit``, 5 and 95 % are calibrated on held-out rows: about 90 % of rows of the same kind
        lie between them.

        Raises:
            ValueError: A level is not within (0, 1).
        """
        check_all("levels", levels, Real)
        for level in levels:
            check_number("levels", level, above=0, below=1)
        asked = Asked.of(texts, fields, batch_size)
        quantiles = self._fitted().quantiles(asked, list(levels))
        return quantiles[:, 0] if len(self.targets) == 1 else quantiles

    def sample(
        self, texts: Any, n: int, *, fields: Any = None, seed: int = 0, batch_size: int = 64
    ) -> np.ndarray:
        """N numbers drawn for each text, shape (texts, n), or (texts, n, k): jointly for k targets.

        Raises:
            ValueError: n is below 1.
        """
        check_number("n", n, least=1, whole=True)
        asked = Asked.of(texts, fields, batch_size)
        samples = self._fitted().sample(asked, n, np.random.default_rng(seed))
        return samples[..., 0] if len(self.targets) == 1 else samples

    def log_prob(
        self, texts: Any, numbers: Any, *, fields: Any = None, batch_size: int = 64
    ) -> np.ndarray:
        """Natural logarithm of the density at each text's number (jointly for k targets), (n,)."""
        asked = Asked.of(texts, fields, batch_size)
        return self._fitted().log_prob(asked, self._numbers(numbers, len(asked.texts)))

    def score(
        self,
        texts: Any,
        numbers: Any,
        *,
        fields: Any = None,
        metric: str = "r2",
        batch_size: int = 64,
    ) -> float:
        """A score of the predicted numbers; the mean over targets.

        Args:
            texts: n texts.
            numbers: The true numbers, as in ``fit``.
            fields: As in ``fit``.
            metric: ``"r2"`` as scikit-learn's regressors, ``"spearman"`` as the paper, or
                ``"coverage"``: the share inside the 90 % intervals.
            batch_size: Texts at once.

        Raises:
            ValueError: The metric is unknown.
        """
        scores = self.evaluate(texts, numbers, fields=fields, batch_size=batch_size)
        if metric not in ("r2", "spearman", "coverage"):
            raise ValueError(f"metric must be 'r2', 'spearman' or 'coverage', got {metric!r}")
        return float(np.mean([getattr(s, metric) for s in scores.values()]))

    def evaluate(
        self, texts: Any, numbers: Any, *, fields: Any = None, batch_size: int = 64
    ) -> dict[str, Any]:
        """``Scores`` by target."""
        asked = Asked.of(texts, fields, batch_size)
        array = self._numbers(numbers, len(asked.texts))
        quantiles = self._fitted().quantiles(asked, (0.05, 0.5, 0.95))
        scores = {}
        for j, name in enumerate(self.targets):
            low, middle, high = quantiles[:, j].T
            known = array[np.isfinite(array[:, j]), j]
            scale = TargetScale.fit(known if len(known) else np.zeros(1))
            off = scale.to_scale(middle) - scale.to_scale(array[:, j])
            scores[name] = scores_of(array[:, j], middle, off, (low, high))
        return scores

    def save(self, folder: str | Path) -> Path:
        """Write a folder in Hugging Face's layout; ``RLM.load`` and ``RLMModel.from_pretrained`` read it.

        Raises:
            ValueError: Only a fitted model can be saved.
        """
        model = self._model
        if not isinstance(model, TableModel):
            raise ValueError("only a fitted model can be saved: call fit first")
        report = self.report_
        folder = save_checkpoint(
            folder,
            model.model.network,
            model.model.tokenizer,
            name=Path(folder).name,
            settings={_SETTING: {**model.to_json(), "report": report.to_json()}},
        )
        save_file(model.lead.arrays(), str(folder / _TABLE))
        (folder / "README.md").write_text(_card(model, report), encoding="utf-8")
        return folder

    def push(self, repo_id: str, *, private: bool = True, **options: Any) -> str:
        """Save to the Hugging Face Hub.

        Args:
            repo_id: ``"owner/name"``.
            private: Whether a repository that is made is private.
            **options: Of ``huggingface_hub.upload_folder``, such as ``token`` or ``revision``.

        Returns:
            The address of the commit.

        Raises:
            ImportError: huggingface_hub is not installed (extra ``train``).
        """
        import tempfile

        from huggingface_hub import create_repo, upload_folder

        with tempfile.TemporaryDirectory() as temporary:
            folder = self.save(Path(temporary) / repo_id.rpartition("/")[2])
            create_repo(repo_id, private=private, exist_ok=True, token=options.get("token"))
            return str(upload_folder(repo_id=repo_id, folder_path=str(folder), **options))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, as scikit-learn asks for them."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> RLM:
        """Change some of the constructor's arguments.

        Raises:
            ValueError: There is no such argument.
        """
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"{name!r} is none of {sorted(known)}")
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import RegressorTags, Tags, TargetTags

        return Tags(
            estimator_type="regressor",
            target_tags=TargetTags(required=True, multi_output=True),
            regressor_tags=RegressorTags(),
        )

    def __repr__(self) -> str:
        changed = {
            name: value
            for name, value in self.get_params().items()
            if value != inspect.signature(type(self).__init__).parameters[name].default
        }
        return f"RLM({', '.join(f'{k}={v!r}' for k, v in changed.items())})"

    def _options(self) -> FitOptions:
        names = [f.name for f in dataclasses.fields(FitOptions)]
        return FitOptions(**{name: getattr(self, name) for name in names})

    def _fitted(self) -> _Model:
        if self._model is None:
            raise ValueError("nothing to ask yet: call fit, or RLM.load() for the bundled model")
        return self._model

    def _numbers(self, numbers: Any, n: int) -> np.ndarray:
        names, array = number_columns(numbers, n)
        if array.shape[1] == len(self.targets):
            return array
        if set(self.targets) <= set(names):
            return array[:, [names.index(t) for t in self.targets]]
        raise ValueError(
            f"numbers has {array.shape[1]} columns, the model predicts {', '.join(self.targets)}"
        )


def _model_type(folder: Path) -> str:
    config = folder / "config.json"
    return str(json.loads(config.read_text()).get("model_type")) if config.exists() else ""


def _card(model: TableModel, report: FitReport) -> str:
    return (
        "---\nlibrary_name: autotune-rlm\npipeline_tag: tabular-regression\n---\n"
        f"# Text to {', '.join(model.targets)}\n\n"
        "A Regression Language Model fitted with `autotune_rlm.RLM`.\n\n"
        f"```text\n{report}\n```\n\n"
        '```python\nfrom autotune_rlm import RLM\n\nRLM.load("FOLDER").predict(texts)\n```\n'
    )
