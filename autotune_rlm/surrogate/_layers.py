"""The parts that the network is made of: its sizes, and its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the network.

    Attributes:
        vocab_size: Tokens of the text tokenizer.
        d_model: Width.
        heads: Attention heads.
        d_ff: Width of the feed-forward layers.
        source_layers: Transformer layers over the source tokens.
        latents: Vectors that the source is pooled into.
        encoder_layers: Transformer layers over shared fields and latents.
        decoder_layers: Layers of the decoder.
        metrics: Names of the metrics that can be asked for.
        number_length: Tokens per number of the numeric codec.
        number_vocab: Size of the numeric codec's vocabulary.
        max_metrics: Most metrics decoded in one sequence.
        max_source: Longest source in tokens.
        dropout: Rate while training.
        text_words: Buckets of words of candidates' texts; 0 where such texts are not read.
        text_layers: Transformer layers over candidates' texts.
        text_group: Tokens of such a text that become one vector.
        text_latents: Vectors that it is pooled into.
        max_text: Longest such text in tokens.
        backbone: Configuration of a transformers encoder that reads the candidates' texts in place of
            our own layers, with its ``model_type``; in a recipe the path of its folder. None for ours.
        backbone_training: ``"frozen"``, ``"full"`` or ``"lora"``, see ``backbone.BackboneReader``.
        text_dropout: Rate of hiding parts of what a text tells, while training.
        sequences: Whether a target may be told the values of others, so that several are decoded one
            after the other.
    """

    vocab_size: int = 4096
    d_model: int = 128
    heads: int = 4
    d_ff: int = 512
    source_layers: int = 2
    latents: int = 8
    encoder_layers: int = 2
    decoder_layers: int = 4
    metrics: tuple[str, ...] = ("slowdown", "scale")
    number_length: int = 1
    number_vocab: int = 130
    max_metrics: int = 4
    max_source: int = 2048
    dropout: float = 0.0
    text_words: int = 0
    text_layers: int = 2
    text_group: int = 4
    text_latents: int = 8
    max_text: int = 1024
    text_dropout: float = 0.1
    backbone: Mapping[str, Any] | None = None
    backbone_training: str = "frozen"
    sequences: bool = False

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {**asdict(self), "metrics": list(self.metrics)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> NetworkConfig:
        """The inverse of ``to_json``; unknown keys are dropped."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        known["metrics"] = tuple(known.get("metrics", cls.metrics))
        return cls(**known)


Pair = tuple[Tensor, Tensor]


def _split(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:-1], heads, -1).transpose(-3, -2)


class Attention(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.heads = c.heads
        self.query = nn.Linear(c.d_model, c.d_model, bias=False)
        self.pair = nn.Linear(c.d_model, 2 * c.d_model, bias=False)
        self.out = nn.Linear(c.d_model, c.d_model, bias=False)

    def keys(self, x: Tensor) -> Pair:
        k, v = self.pair(x).chunk(2, dim=-1)
        return _split(k, self.heads), _split(v, self.heads)

    def forward(self, x: Tensor, keys: Pair, mask: Tensor | None) -> Tensor:
        q = _split(self.query(x), self.heads)
        y = F.scaled_dot_product_attention(q, keys[0], keys[1], attn_mask=mask)
        return self.out(y.transpose(-3, -2).flatten(-2))


class FeedForward(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c.d_model)
        self.up, self.down = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.down(F.gelu(self.up(self.norm(x)))))


class EncoderLayer(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(c.d_model), Attention(c)
        self.forward_layer = FeedForward(c)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.norm(x)
        return self.forward_layer(x + self.attention(y, self.attention.keys(y), mask))


class DecoderLayer(nn.Module):
    """Attends to the candidate's fields and to the task's memory at once, then thinks."""

    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        d = c.d_model
        self.heads = c.heads
        self.norm = nn.LayerNorm(d)
        self.queries = nn.Linear(d, 2 * d, bias=False)
        self.field_pair = nn.Linear(d, 2 * d, bias=False)
        self.memory_pair = nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(2 * d, d, bias=False)
        self.forward_layer = FeedForward(c)

    def memory_keys(self, x: Tensor) -> Pair:
        k, v = self.memory_pair(x).chunk(2, dim=-1)
        return _split(k, self.heads), _split(v, self.heads)

    def field_keys(self, x: Tensor, index: Tensor | None) -> Pair:
        """Keys and values (n, heads, c, d_head) of n candidates from u distinct fields (u, d).

        Without an index those of all fields, (1, heads, u, d_head).
        """
        k, v = self.field_pair(x).chunk(2, dim=-1)
        k, v = (k[None], v[None]) if index is None else (k[index], v[index])
        return _split(k, self.heads), _split(v, self.heads)

    def forward(
        self, x: Tensor, fields: Pair, fields_mask: Tensor, memory: Pair, memory_mask: Tensor
    ) -> Tensor:
        """Run one layer.

        Args:
            x: Token vectors, (n, t, d).
            fields: Keys and values of the candidates' fields, as ``field_keys`` gives them.
            fields_mask: Bool, (n, 1, 1, c); of all fields (1, 1, n * t, u).
            memory: Keys and values of the tasks, (b, heads, s, d_head); n is a multiple of b.
            memory_mask: Bool, (b, 1, 1, s).
        """
        own, task = self.queries(self.norm(x)).chunk(2, dim=-1)
        parts = (self._read(own, fields, fields_mask), self._read(task, memory, memory_mask))
        return self.forward_layer(x + self.out(torch.cat(parts, dim=-1)))

    def _read(self, query: Tensor, pair: Pair, mask: Tensor) -> Tensor:
        """Attention of queries (n, t, d), in equal groups, to each group's keys and values."""
        groups = len(pair[0])
        rows = _split(query.reshape(groups, -1, query.shape[-1]), self.heads)
        read = F.scaled_dot_product_attention(rows, *pair, mask)
        return read.transpose(-3, -2).reshape(query.shape)


def initialised(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.7 / module.in_features**0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
