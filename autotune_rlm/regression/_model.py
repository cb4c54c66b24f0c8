"""The network on rows of a table: a text, fields beside it, and numbers decoded one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from autotune_rlm.surrogate.checkpoint import Checkpoint
from autotune_rlm.surrogate.codec import SPECIAL, BinCodec
from autotune_rlm.surrogate.fields import FieldTable
from autotune_rlm.surrogate.network import FieldTensors, Network
from autotune_rlm.surrogate.text import Field, leaf
from autotune_rlm.surrogate.tokenizer import TextTokenizer, padded

CODEC = BinCodec(low=-8.0, high=8.0, knee=float("inf"), bins=128)
_MAX_CHARS = 100_000


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table, encoded."""

    texts: list[np.ndarray]  # token ids of the distinct ones
    text_of: np.ndarray  # which text a row has, (n,)
    fields: FieldTensors  # the distinct ones
    index: np.ndarray  # fields of each row, (n, c); -1 where there is none

    def __len__(self) -> int:
        return len(self.text_of)

    def take(self, which: np.ndarray) -> Rows:
        return dataclasses.replace(self, text_of=self.text_of[which], index=self.index[which])


class RowBatch(NamedTuple):
    """What the network reads of b rows."""

    fields: FieldTensors
    index: Tensor  # type: ignore[assignment]  # tuple has a method of this name
    source: Tensor
    source_of: Tensor


class RowModel(nn.Module):
    """A network, see ``extend``, whose last metrics are the targets of a table."""

    def __init__(
        self,
        network: Network,
        tokenizer: TextTokenizer,
        targets: Sequence[str],
        *,
        max_tokens: int = 2048,
    ) -> None:
        super().__init__()
        self.network, self.tokenizer, self.targets = network, tokenizer, tuple(targets)
        sizes = network.config
        self.max_tokens = min(
            max_tokens, sizes.max_text if network.text is not None else sizes.max_source
        )

    @classmethod
    def extend(
        cls, checkpoint: Checkpoint, targets: Sequence[str], *, max_tokens: int = 2048
    ) -> RowModel:
        """A copy of a checkpoint's network that can be asked for new targets as well."""
        old = checkpoint.network.config
        kept = tuple(m for m in old.metrics if not m.startswith("target:"))
        config = dataclasses.replace(
            old,
            metrics=kept + tuple(f"target:{name}" for name in targets),
            max_metrics=max(old.max_metrics, len(targets)),
        )
        network = Network(config)
        ours = network.state_dict()
        for name, weight in checkpoint.network.state_dict().items():
            if ours[name].shape == weight.shape:
                ours[name] = weight.clone()
            else:  # one row more for each target
                rows = min(len(weight), len(ours[name]), len(kept) if "metric" in name else 10**9)
                ours[name][:rows] = weight[:rows]
        like = "number" if "number" in kept else "scale"  # what a new target is most like
        ours["metric.weight"][len(kept) :] = ours["metric.weight"][kept.index(like)].clone()
        network.load_state_dict(ours)
        return cls(network, checkpoint.tokenizer, targets, max_tokens=max_tokens)

    def encode_rows(self, texts: Sequence[str], fields: Sequence[Mapping[str, Any]]) -> Rows:
        """Tokens of each distinct text and numbers of each distinct field."""
        places: dict[str, int] = {}
        text_of = np.array([places.setdefault(t, len(places)) for t in texts], dtype=np.int64)
        shown = [t[:_MAX_CHARS].encode("utf-8", "replace").decode() for t in places]
        ids = self.tokenizer.encode_batch(shown, limit=self.max_tokens)
        table = FieldTable()
        start = table.add(Field("number", "target"))  # what a row without fields is decoded from
        rows = [[start] + [table.add(Field(str(k), leaf(v))) for k, v in f.items()] for f in fields]
        index = padded(rows)
        tokens = [np.array(i, dtype=np.int64) for i in ids]
        return Rows(tokens, text_of, table.tensors(self.tokenizer), index)

    def batch(self, rows: Rows, which: np.ndarray) -> RowBatch:
        """Some of the rows; of fields and texts only those that they have."""
        used, index = np.unique(rows.index[which], return_inverse=True)
        index = index.reshape(rows.index[which].shape) - int(used[0] < 0)
        kept = torch.from_numpy(used[used >= 0])
        some, source_of = np.unique(rows.text_of[which], return_inverse=True)
        source = padded([rows.texts[i] for i in some])
        device = self.network.head.weight.device
        fields = FieldTensors(*(t[kept].to(device) for t in rows.fields))
        return RowBatch(
            fields,
            torch.from_numpy(index).to(device),
            torch.from_numpy(source).to(device),
            torch.from_numpy(source_of.ravel()).to(device),
        )

    def forward(self, batch: RowBatch, previous: Tensor | None = None) -> Tensor:
        """Logits (b, k + 1, vocabulary) of the first target, and of those after k known tokens."""
        network = self.network
        embedded = network.embed_fields(batch.fields)
        b = len(batch.index)
        own = embedded[batch.index.clamp(min=0)]
        own_there = batch.index >= 0
        first = len(network.config.metrics) - len(self.targets)
        metrics = torch.arange(first, len(network.config.metrics), device=own.device).expand(b, -1)
        if network.text is None:  # a checkpoint that reads sources alone
            memory = network.encode(own, own_there, batch.source, batch.source_of)
            return network.decode(memory, embedded, batch.index, metrics, previous)[0]
        texts = network.read_texts(batch.source)
        memory = network.encode(own, own_there)
        logits, _ = network.decode(
            memory, embedded, batch.index, metrics, previous, texts=texts, text_of=batch.source_of
        )
        return logits

    @torch.inference_mode()
    def histograms(
        self, rows: Rows, *, batch_size: int = 64, known: np.ndarray | None = None
    ) -> np.ndarray:
        """Probabilities of the bins of each target of n rows, (n, k, bins).

        A later target is decoded after the most probable bins of those before it, or after the tokens
        ``known``, (n, k).
        """
        self.network.eval()
        k = len(self.targets)
        histograms = np.zeros((len(rows), k, CODEC.bins))
        for which in _by_length(rows, batch_size):
            batch, previous = self.batch(rows, which), None
            for j in range(k):
                logits = self(batch, previous)[:, -1]
                histograms[which, j] = logits[:, SPECIAL:].double().softmax(-1).cpu().numpy()
                token = logits[:, SPECIAL:].argmax(-1, keepdim=True) + SPECIAL
                if known is not None:
                    token = torch.from_numpy(known[which, j : j + 1]).to(token.device)
                previous = token if previous is None else torch.cat([previous, token], dim=1)
        return histograms

    @torch.inference_mode()
    def sample(
        self, rows: Rows, draws: int, rng: np.random.Generator, *, batch_size: int = 64
    ) -> np.ndarray:
        """Positions (fractional bins) of targets drawn one after the other, (n, draws, k)."""
        self.network.eval()
        k = len(self.targets)
        positions = np.zeros((len(rows), draws, k))
        for row_ids in _by_length(rows, batch_size):
            tokens: np.ndarray | None = None
            for j in range(k):
                if tokens is None:
                    p = self(self.batch(rows, row_ids))[:, -1, SPECIAL:].double().softmax(-1)
                    p = p.cpu().numpy()[:, None].repeat(draws, axis=1)
                else:
                    p = np.stack(
                        [self._after(rows, row_ids, tokens[:, d]) for d in range(draws)], axis=1
                    )
                below = np.cumsum(p, axis=-1)
                u = rng.random((*below.shape[:2], 1)) * below[..., -1:]
                bins = np.minimum((below < u).sum(-1), CODEC.bins - 1)
                positions[row_ids, :, j] = bins + rng.uniform(-0.5, 0.5, bins.shape)
                token = (bins + SPECIAL)[..., None]
                tokens = token if tokens is None else np.concatenate([tokens, token], axis=-1)
        return positions

    def _after(self, rows: Rows, which: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        logits = self(self.batch(rows, which), torch.from_numpy(tokens))[:, -1, SPECIAL:]
        return logits.double().softmax(-1).cpu().numpy()


def _by_length(rows: Rows, size: int) -> list[np.ndarray]:
    """Rows in batches of texts of about one length, so that little is padded."""
    if not len(rows):
        return []
    length = np.array([len(t) for t in rows.texts])[rows.text_of]
    order = np.lexsort((rows.text_of, length))
    return np.array_split(order, -(-len(order) // size))
