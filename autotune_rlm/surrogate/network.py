"""The network of the RLM: an encoder for the shared prompt, a decoder for the candidates.

The shared part (fields of device and problem, source tokens) is encoded once per task. The source is
read by a transformer over its tokens and pooled into a few latent vectors (the idea of Perceiver,
arXiv 2103.03206), so that a long source costs nothing per candidate.

A candidate's own text (a program, a network) is read by ``TextReader`` into a few more vectors that
stand beside its fields.

The decoder writes numbers token by token. Each token position is one vector that starts as the sum of
the candidate's fields, of a query for its metric and place, and of the tokens written before it; each
layer attends to the candidate's fields and to the encoded task. Keys and values of the fields are
computed once per distinct field, not per candidate: thousands of candidates share a few dozen fields,
so a candidate costs a gather and one vector's way through the layers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autotune_rlm.surrogate._layers import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    NetworkConfig,
    Pair,
    initialised,
)
from autotune_rlm.surrogate.backbone import BackboneReader
from autotune_rlm.surrogate.numbers import NUMBER_FEATURES
from autotune_rlm.surrogate.text_reader import TextReader

__all__ = ["FieldTensors", "Memory", "Network", "NetworkConfig", "TextVectors"]

_FEW_FIELDS = 256  # distinct fields up to which each candidate attends to all, under a mask


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


class TextVectors(NamedTuple):
    """k texts of candidates, read."""

    vectors: Tensor
    """What to attend to, (k, text_latents + 1, d)."""
    starts: Tensor
    """What to add to the candidate's own vector, (k, d)."""


class Memory(NamedTuple):
    """The encoded shared part of b tasks."""

    keys: tuple[Pair, ...]
    """Per decoder layer, keys and values of shape (b, heads, s, d_head)."""
    mask: Tensor
    """Bool, shape (b, s); True where there is something to attend to."""


class Network(nn.Module):
    """Fields and source tokens in, logits of the numeric codec out.

    Args:
        config: Sizes.
        initialise: Whether to draw random weights; False where weights are loaded next.
    """

    def __init__(self, config: NetworkConfig, *, initialise: bool = True) -> None:
        super().__init__()
        self.config = c = config
        d = c.d_model
        self.tokens = nn.Embedding(c.vocab_size, d)
        self.piece_position = nn.Embedding(8, d)
        self.source_position = nn.Embedding(c.max_source, d)
        self.name_in, self.text_in = nn.Linear(d, d), nn.Linear(d, d)
        self.number_in = nn.Sequential(nn.Linear(NUMBER_FEATURES, d), nn.GELU(), nn.Linear(d, d))
        self.field_layer = FeedForward(c)
        self.source_layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.source_layers))
        self.latents = nn.Parameter(torch.randn(c.latents, d) * 0.5)
        self.pool, self.pool_norm = Attention(c), nn.LayerNorm(d)
        self.encoder = nn.ModuleList(EncoderLayer(c) for _ in range(c.encoder_layers))
        self.encoder_norm = nn.LayerNorm(d)
        self.decoder = nn.ModuleList(DecoderLayer(c) for _ in range(c.decoder_layers))
        self.metric = nn.Embedding(len(c.metrics), d)
        self.place = nn.Embedding(c.number_length, d)
        self.written = nn.Embedding(c.max_metrics * c.number_length * c.number_vocab, d)
        if c.sequences:
            self.told_of, self.told = nn.Linear(d, d), nn.Linear(d, d)
        self.text = _text_reader(c, self.tokens)
        self.final_norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, c.number_vocab)
        if not initialise:
            return
        for child in self.children():
            child.apply(initialised)
        if self.text is not None:
            self.text.initialise()
        if c.sequences:
            nn.init.zeros_(self.told_of.weight)
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

    def _decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    def _read_source(self, source: Tensor) -> Tensor:
        """Latents (k, latents, d) of k sources (k, t); an empty one reads as all padding."""
        source = source[:, : self.config.max_source]
        present = source >= 0
        seen = (present | ~present.any(dim=1, keepdim=True))[:, None, None, :]
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
        *,
        texts: TextVectors | None = None,
        text_of: Tensor | None = None,
        condition: Tensor | None = None,
        last: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Decode n candidates of b tasks, n / b of each, in the tasks' order.

        Args:
            memory: The encoded tasks.
            fields: Embeddings of u distinct fields, (u, d).
            index: Long, (n, c): each candidate's fields; -1 where there is none.
            metrics: Long, (b, m): the metrics to decode, in this order.
            previous: Tokens known so far, (n, k) with k < m * number_length; logits are given for
                positions 0 to k. None where nothing is known.
            texts: The k distinct texts of the candidates, as ``read_texts`` gives them; None where
                they have none.
            text_of: Long, (n,): each candidate's text; -1 where it has none.
            condition: What is known of other targets of the candidates, (n, d), as ``condition`` gives
                it; None where nothing is.
            last: Whether only the last position is wanted.

        Returns:
            Logits (n, k + 1, number_vocab) and hidden states (n, k + 1, d); of the last position alone
            (n, 1, ...) where ``last``.
        """
        n, c = index.shape
        b = len(memory.mask)
        present = index >= 0
        weight = present.to(fields.dtype)
        pooled = F.embedding_bag(index.clamp(min=0), fields, mode="sum", per_sample_weights=weight)
        starts: Tensor | None = None
        if texts is not None and text_of is not None:
            fields, index, present, starts = self._with_texts(
                fields, index, present, texts, text_of
            )
        k = 0 if previous is None else previous.shape[1]
        position = torch.arange(k + 1, device=index.device)
        length = self.config.number_length
        query = self.metric(metrics)[:, position // length] + self.place(position % length)
        x = pooled[:, None] / c**0.5 + query.repeat_interleave(n // b, dim=0)
        for more in (starts, condition):
            if more is not None:
                x = x + more[:, None]
        if previous is not None and k:
            written = self.written(previous + position[:-1] * self.config.number_vocab)
            x = x + F.pad(written.cumsum(1), (0, 0, 1, 0))
        if last:
            x = x[:, -1:]
        fields_mask = (present | ~present.any(1, keepdim=True))[:, None, None, :]
        at: Tensor | None = index.clamp(min=0)
        if len(fields) <= _FEW_FIELDS:  # faster than a copy of its fields' keys for each candidate
            have = _membership(index.clamp(min=0), fields_mask[:, 0, 0], len(fields))
            some = have.any(0)
            fields, have = fields[some], have[:, some]
            at, fields_mask = None, have.repeat_interleave(x.shape[1], dim=0)[None, None]
        memory_mask = memory.mask[:, None, None, :]
        for layer, keys in zip(self._decoder_layers(), memory.keys, strict=True):
            x = layer(x, layer.field_keys(fields, at), fields_mask, keys, memory_mask)
        hidden = self.final_norm(x)
        return self.head(hidden), hidden

    def read_texts(self, tokens: Tensor) -> TextVectors:
        """Read k texts of candidates, tokens padded with -1, (k, t).

        Raises:
            ValueError: The network has no reader of texts.
        """
        if self.text is None:
            raise ValueError("tokens: this network does not read texts (network.text_words is 0)")
        return TextVectors(*self.text(tokens))

    def condition(self, tokens: Tensor, described: Tensor) -> Tensor:
        """The condition of a target, (n, d), on others that were decoded before it.

        It is 0 before training, because ``told_of`` starts at 0: a target in a sequence is then what it
        is alone.

        Args:
            tokens: The others' tokens, (n, k); below nothing where one is not known.
            described: What each of the others is, (n, k, d), as ``describe`` gives it.
        """
        known = (tokens >= 0).unsqueeze(-1)
        values = self.written(tokens.clamp(min=0)) * self.told_of(described) * known
        return self.told(values.sum(1) / known.sum(1).clamp(min=1) ** 0.5)

    def describe(self, fields: Tensor, index: Tensor) -> Tensor:
        """What a target is, (..., d), by its fields: embeddings (u, d), indices (..., f), -1 for none."""
        present = (index >= 0).unsqueeze(-1)
        total = (fields[index.clamp(min=0)] * present).sum(-2)
        return total / present.sum(-2).clamp(min=1) ** 0.5

    def _with_texts(
        self, fields: Tensor, index: Tensor, present: Tensor, texts: TextVectors, text_of: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fields, their places and which there are, with the vectors of texts; and what texts add."""
        vectors, starts = texts
        count = vectors.shape[1]
        some = (text_of >= 0)[:, None]
        text_of = text_of.clamp(min=0)
        places = len(fields) + text_of[:, None] * count + torch.arange(count, device=index.device)
        return (
            torch.cat([fields, vectors.flatten(0, 1)]),
            torch.cat([index, places], dim=1),
            torch.cat([present, some.expand(-1, count)], dim=1),
            starts[text_of] * some,
        )


def _membership(index: Tensor, present: Tensor, count: int) -> Tensor:
    """Which of ``count`` fields n candidates have, (n, count), from their fields' indices (n, c)."""
    places = torch.where(present, index, count)
    none = torch.zeros(len(index), count + 1, dtype=torch.bool, device=index.device)
    return none.scatter_(1, places, True)[:, :count]


def _text_reader(config: NetworkConfig, tokens: nn.Embedding) -> TextReader | BackboneReader | None:
    if config.backbone is not None:
        return BackboneReader(config)
    return TextReader(config, tokens) if config.text_words else None
