"""The network of the RLM: an encoder for the shared prompt, a decoder for the candidates.

The shared part (fields of device and problem, source tokens) is encoded once per task. The source is
read by a transformer over its tokens and pooled into a few latent vectors (the idea of Perceiver,
arXiv 2103.03206), so that a long source costs nothing per candidate.

The decoder writes numbers token by token. Each token position is one vector that starts as the sum of
the candidate's fields, of a query for its metric and place, and of the tokens written before it; each
layer attends to the candidate's fields and to the encoded task. Keys and values of the fields are
computed once per distinct field, not per candidate: thousands of candidates share a few dozen fields,
so a candidate costs a gather and one vector's way through the layers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autotune_rlm.surrogate.numbers import NUMBER_FEATURES

__all__ = ["FieldTensors", "Memory", "Network", "NetworkConfig"]


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


class FieldTensors(NamedTuple):
    """u distinct fields: name and value tokens padded with -1, and the values' number features."""

    name: Tensor
    """Long, shape (u, p)."""
    text: Tensor
    """Long, shape (u, q); all -1 where the value is a number."""
    number: Tensor
    """Float, shape (u, NUMBER_FEATURES); zero where the value is text."""
    is_number: Tensor
    """Bool, shape (u,)."""


class Memory(NamedTuple):
    """The encoded shared part of b tasks."""

    keys: tuple[Pair, ...]
    """Per decoder layer, keys and values of shape (b, heads, s, d_head)."""
    mask: Tensor
    """Bool, shape (b, s); True where there is something to attend to."""


def _split(x: Tensor, heads: int) -> Tensor:
    return x.view(*x.shape[:-1], heads, -1).transpose(-3, -2)


class _Attention(nn.Module):
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


class _FeedForward(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c.d_model)
        self.up, self.down = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.drop = nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.down(F.gelu(self.up(self.norm(x)))))


class _EncoderLayer(nn.Module):
    def __init__(self, c: NetworkConfig) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(c.d_model), _Attention(c)
        self.forward_layer = _FeedForward(c)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.norm(x)
        return self.forward_layer(x + self.attention(y, self.attention.keys(y), mask))


class _DecoderLayer(nn.Module):
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
        self.forward_layer = _FeedForward(c)

    def memory_keys(self, x: Tensor) -> Pair:
        k, v = self.memory_pair(x).chunk(2, dim=-1)
        return _split(k, self.heads), _split(v, self.heads)

    def field_keys(self, x: Tensor, index: Tensor) -> Pair:
        """Keys and values (n, heads, c, d_head) of n candidates from u distinct fields (u, d)."""
        k, v = self.field_pair(x).chunk(2, dim=-1)
        return _split(k[index], self.heads), _split(v[index], self.heads)

    def forward(
        self, x: Tensor, fields: Pair, fields_mask: Tensor, memory: Pair, memory_mask: Tensor
    ) -> Tensor:
        """Run one layer.

        Args:
            x: Token vectors, (n, t, d).
            fields: Keys and values of the candidates' fields, (n, heads, c, d_head).
            fields_mask: Bool, (n, 1, 1, c).
            memory: Keys and values of the tasks, (b, heads, s, d_head); n is a multiple of b.
            memory_mask: Bool, (b, 1, 1, s).
        """
        n, t, d = x.shape
        b = len(memory[0])
        own, task = self.queries(self.norm(x)).chunk(2, dim=-1)
        seen = F.scaled_dot_product_attention(_split(own, self.heads), *fields, fields_mask)
        rows = _split(task.reshape(b, n // b * t, d), self.heads)
        told = F.scaled_dot_product_attention(rows, *memory, memory_mask)
        told = told.transpose(-3, -2).reshape(n, t, d)
        both = torch.cat([seen.transpose(-3, -2).flatten(-2), told], dim=-1)
        return self.forward_layer(x + self.out(both))


class Network(nn.Module):
    """Fields and source tokens in, logits of the numeric codec out.

    Args:
        config: Sizes.
        initialise: Whether to draw random weights; False where weights are loaded next.
        backbone: Reads the source in place of our own layers: token ids (k, t) and their mask in,
            hidden states (k, t, d_model) out. None for our own.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        initialise: bool = True,
        backbone: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = c = config
        d = c.d_model
        self.tokens = nn.Embedding(c.vocab_size, d)
        self.piece_position = nn.Embedding(8, d)
        self.source_position = nn.Embedding(c.max_source, d)
        self.name_in, self.text_in = nn.Linear(d, d), nn.Linear(d, d)
        self.number_in = nn.Sequential(nn.Linear(NUMBER_FEATURES, d), nn.GELU(), nn.Linear(d, d))
        self.field_layer = _FeedForward(c)
        self.source_layers = nn.ModuleList(_EncoderLayer(c) for _ in range(c.source_layers))
        self.latents = nn.Parameter(torch.randn(c.latents, d) * 0.5)
        self.pool, self.pool_norm = _Attention(c), nn.LayerNorm(d)
        self.encoder = nn.ModuleList(_EncoderLayer(c) for _ in range(c.encoder_layers))
        self.encoder_norm = nn.LayerNorm(d)
        self.decoder = nn.ModuleList(_DecoderLayer(c) for _ in range(c.decoder_layers))
        self.metric = nn.Embedding(len(c.metrics), d)
        self.place = nn.Embedding(c.number_length, d)
        self.written = nn.Embedding(c.max_metrics * c.number_length * c.number_vocab, d)
        self.final_norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, c.number_vocab)
        if not initialise:
            return
        for child in self.children():
            if child is not backbone:
                child.apply(_init)
        for layer in self._decoder_layers():
            nn.init.normal_(layer.out.weight, std=0.3 / d**0.5)
            nn.init.normal_(layer.forward_layer.down.weight, std=0.3 / c.d_ff**0.5)
        nn.init.normal_(self.written.weight, std=0.05)

    def embed_fields(self, fields: FieldTensors) -> Tensor:
        """Embeddings of u fields, shape (u, d)."""
        value = torch.where(
            fields.is_number[:, None],
            self.number_in(fields.number),
            self.text_in(self._pieces(fields.text)),
        )
        return self.field_layer(self.name_in(self._pieces(fields.name)) + value)

    def _pieces(self, ids: Tensor) -> Tensor:
        present = (ids >= 0).unsqueeze(-1)
        position = self.piece_position.weight[: ids.shape[1]]
        x = F.gelu(self.tokens(ids.clamp(min=0)) + position) * present
        return x.sum(1) / present.sum(1).clamp(min=1)

    def encode(
        self,
        fields: Tensor,
        fields_mask: Tensor,
        source: Tensor | None = None,
        source_of: Tensor | None = None,
    ) -> Memory:
        """Encode the shared part of b tasks.

        Args:
            fields: Field embeddings, (b, f, d).
            fields_mask: Bool, (b, f).
            source: Tokens of k distinct sources padded with -1, (k, t); None where there is none.
            source_of: Long, (b,): each task's source, -1 for none. None where k is b.
        """
        x, mask = fields, fields_mask
        if source is not None and source.numel():
            latents = self._read_source(source)
            if source_of is None:
                source_of = torch.arange(len(source), device=source.device)
            x = torch.cat([x, latents[source_of.clamp(min=0)]], dim=1)
            some = (source_of >= 0)[:, None].expand(-1, latents.shape[1])
            mask = torch.cat([mask, some], dim=1)
        attend = mask[:, None, None, :]
        for layer in self.encoder:
            x = layer(x, attend)
        x = self.encoder_norm(x)
        return Memory(tuple(layer.memory_keys(x) for layer in self._decoder_layers()), mask)

    def _decoder_layers(self) -> list[_DecoderLayer]:
        return [layer for layer in self.decoder if isinstance(layer, _DecoderLayer)]

    def _read_source(self, source: Tensor) -> Tensor:
        """Latents (k, latents, d) of k sources (k, t); an empty one reads as all padding."""
        source = source[:, : self.config.max_source]
        present = source >= 0
        seen = (present | ~present.any(dim=1, keepdim=True))[:, None, None, :]
        if self.backbone is not None:
            x = self.backbone(source.clamp(min=0), present)
        else:
            x = self.tokens(source.clamp(min=0)) + self.source_position.weight[: source.shape[1]]
            for layer in self.source_layers:
                x = layer(x, seen)
        latents = self.latents.expand(len(source), -1, -1)
        return latents + self.pool(latents, self.pool.keys(self.pool_norm(x)), seen)

    def decode(
        self,
        memory: Memory,
        fields: Tensor,
        index: Tensor,
        metrics: Tensor,
        previous: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode n candidates of b tasks, n / b of each, in the tasks' order.

        Args:
            memory: The encoded tasks.
            fields: Embeddings of u distinct fields, (u, d).
            index: Long, (n, c): each candidate's fields; -1 where there is none.
            metrics: Long, (b, m): the metrics to decode, in this order.
            previous: Tokens known so far, (n, k) with k < m * number_length; logits are given for
                positions 0 to k. None where nothing is known.

        Returns:
            Logits (n, k + 1, number_vocab) and hidden states (n, k + 1, d).
        """
        n, c = index.shape
        b = len(memory.mask)
        present = index >= 0
        index = index.clamp(min=0)
        pooled = (fields[index] * present.unsqueeze(-1)).sum(1) / c**0.5
        k = 0 if previous is None else previous.shape[1]
        position = torch.arange(k + 1, device=index.device)
        length = self.config.number_length
        query = self.metric(metrics)[:, position // length] + self.place(position % length)
        x = pooled[:, None] + query.repeat_interleave(n // b, dim=0)
        if previous is not None and k:
            told = self.written(previous + position[:-1] * self.config.number_vocab)
            x = x + F.pad(told.cumsum(1), (0, 0, 1, 0))
        fields_mask = (present | ~present.any(1, keepdim=True))[:, None, None, :]
        memory_mask = memory.mask[:, None, None, :]
        for layer, keys in zip(self._decoder_layers(), memory.keys, strict=True):
            x = layer(x, layer.field_keys(fields, index), fields_mask, keys, memory_mask)
        hidden = self.final_norm(x)
        return self.head(hidden), hidden


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.7 / module.in_features**0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.5)
