from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")
pytest.importorskip("xgboost")

from regression_support import Table

from autotune_rlm.regression import RLM
from autotune_rlm.surrogate.checkpoint import save_checkpoint
from autotune_rlm.surrogate.network import Network, NetworkConfig
from autotune_rlm.surrogate.tokenizer import TextTokenizer

TINY = {
    "d_model": 32,
    "heads": 2,
    "d_ff": 64,
    "decoder_layers": 2,
    "encoder_layers": 1,
    "text_words": 512,
}


@pytest.fixture(scope="session")
def table() -> Table:
    return Table()


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a tiny network with random weights."""
    torch.manual_seed(0)
    tokenizer = TextTokenizer.train([Path(__file__).read_text()], vocab_size=400)
    network = Network(NetworkConfig(vocab_size=len(tokenizer), max_source=256, **TINY))
    return save_checkpoint(tmp_path_factory.mktemp("tiny"), network, tokenizer, name="tiny")


@pytest.fixture(scope="session")
def fitted(table: Table, base: Path) -> RLM:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RLM(base, minutes=0.1, progress=False).fit(
            table.texts, table.bytes, fields=table.fields
        )


@pytest.fixture(scope="session")
def two_targets(table: Table, base: Path) -> RLM:
    """A sequence of two targets, the second with negative numbers and zeros."""
    numbers = {"bytes": table.bytes, "change": table.change}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RLM(base, minutes=0.1, progress=False).fit(table.texts, numbers, fields=table.fields)
