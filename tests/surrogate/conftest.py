from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autotune_rlm.surrogate.checkpoint import Checkpoint
from autotune_rlm.surrogate.network import Network, NetworkConfig
from autotune_rlm.surrogate.rlm import RLMSurrogate
from autotune_rlm.surrogate.tokenizer import TextTokenizer

TINY = {"d_model": 32, "heads": 2, "d_ff": 64, "decoder_layers": 2, "encoder_layers": 1}


@pytest.fixture(scope="session")
def tokenizer() -> TextTokenizer:
    """Trained on a text that rarely changes: what a tiny network learns depends on it."""
    text = Path(__file__).with_name("surrogate_support.py").read_text()
    return TextTokenizer.train([text], vocab_size=512)


@pytest.fixture
def surrogate(tokenizer: TextTokenizer) -> RLMSurrogate:
    torch.manual_seed(0)
    network = Network(NetworkConfig(vocab_size=len(tokenizer), max_source=256, **TINY)).eval()
    return RLMSurrogate(Checkpoint("tiny", network.requires_grad_(False), tokenizer, {}))
