"""Reads the texts of candidates: programs, networks.

A text of a thousand tokens must cost a few milliseconds, as there is one for each candidate. So groups
of tokens become one vector before any layer reads them, and what single words tell is looked up: each
token and each pair and triple of tokens has a vector in a hashed table ("Bag of Tricks for Efficient
Text Classification", arXiv 1607.01759), which a few thousand texts suffice to learn.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autotune_rlm.surrogate._layers import Attention, EncoderLayer, NetworkConfig, initialised

__all__ = ["TextReader"]

_PRIMES = (1_000_003, 998_244_353)
_MIN_COUNT = 1.0


class TextReader(nn.Module):
    """Tokens of k texts in, a few vectors of each out; shares the network's table of tokens."""

    def __init__(self, config: NetworkConfig, tokens: nn.Embedding) -> None:
        super().__init__()
        c, d = config, config.d_model
        self._tokens = [tokens]  # shared: not among this module's own parameters
        self._most, self._group = c.max_text, c.text_group
        self.merge = nn.Linear(c.text_group * d, d)
        self.position = nn.Embedding(-(-c.max_text // c.text_group), d)
        self.layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.text_layers))
        self.words = nn.EmbeddingBag(c.text_words, d, mode="sum")
        self.words_in = nn.Linear(d, d)
        self.latents = nn.Parameter(torch.randn(c.text_latents, d) * 0.5)
        self.pool, self.pool_norm = Attention(c), nn.LayerNorm(d)
        self.start = nn.Linear(d, d)
        self.drop = nn.Dropout(c.text_dropout)

    def initialise(self) -> None:
        """Draw random weights; what is added to a candidate's vector starts at nothing."""
        self.apply(initialised)
        nn.init.normal_(self.words.weight, std=0.5)
        nn.init.zeros_(self.start.weight)

    def forward(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors to attend to, (k, text_latents + 1, d), and what to add to the candidate's own, (k, d).

        Texts are tokens padded with -1, long, (k, t); what is longer than ``max_text`` is cut off.
        """
        texts = texts[:, : self._most]
        bag = self.drop(self.words_in(self._bag(texts)))
        k, t = texts.shape
        texts = F.pad(texts, (0, -t % self._group), value=-1)
        there = texts >= 0
        x = F.embedding(texts.clamp(min=0), self._tokens[0].weight) * there.unsqueeze(-1)
        x = self.merge(x.view(k, -1, self._group * x.shape[-1]))
        present = there.view(k, -1, self._group).any(-1)
        seen = (present | ~present.any(1, keepdim=True))[:, None, None, :]
        x = x + self.position.weight[: x.shape[1]]
        for layer in self.layers:
            x = layer(x, seen)
        latents = self.latents.expand(k, -1, -1)
        latents = latents + self.pool(latents, self.pool.keys(self.pool_norm(x)), seen)
        latents = torch.cat([self.drop(latents), bag[:, None]], dim=1)
        return latents, self.start(latents.mean(1))

    def _bag(self, texts: Tensor) -> Tensor:
        """Sums (k, d) of the vectors of all words, each weighed by the logarithm of its count."""
        ids, weights, starts = _words(texts.cpu().numpy(), self.words.num_embeddings)
        device = texts.device
        return self.words(
            torch.from_numpy(ids).to(device),
            torch.from_numpy(starts).to(device),
            per_sample_weights=torch.from_numpy(weights).to(device),
        )


def _words(texts: np.ndarray, buckets: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Buckets of the distinct words of k texts, their weights, and where each text's begin.

    A word is a token, a pair or a triple of tokens. Weights are ``1 + log(count)``, of length 1 a text.
    """
    ids, weights, starts, begin = [], [], [], 0
    for row in texts:
        one = row[row >= 0]
        pairs = one[:-1] * _PRIMES[0] + one[1:] + 1
        triples = pairs[:-1] * _PRIMES[1] + one[2:] + 2
        words = np.concatenate([one, pairs, triples]) % buckets
        found, counts = np.unique(words, return_counts=True)
        weight = _MIN_COUNT + np.log(counts)
        starts.append(begin)
        ids.append(found)
        weights.append(weight / max(float(np.sqrt((weight**2).sum())), 1e-9))
        begin += len(found)
    return (
        np.concatenate(ids).astype(np.int64),
        np.concatenate(weights).astype(np.float32),
        np.array(starts, dtype=np.int64),
    )
