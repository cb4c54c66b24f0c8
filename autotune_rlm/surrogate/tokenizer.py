"""The text tokenizer: a byte-level BPE of our own, trained on code, configurations and graphs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

__all__ = ["TextTokenizer", "padded"]

PIECES = 8


class TextTokenizer:
    """Text to token ids; any text, any bytes. A tokenizer of the ``tokenizers`` library is inside."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.of_texts: Tokenizer | None = None  # of candidates' texts, where an encoder has its own
        self.pieces = lru_cache(maxsize=65536)(self._pieces)
        self._whole = lru_cache(maxsize=256)(self._ids)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    def encode(self, text: str, *, limit: int) -> list[int]:
        """The first ``limit`` token ids of ``text``."""
        return list(self._whole(text)[:limit])

    def encode_batch(self, texts: Sequence[str], *, limit: int) -> list[list[int]]:
        """The first ``limit`` token ids of each candidate's text; nothing is kept."""
        if self.of_texts is not None:
            found = self.of_texts.encode_batch_fast(list(texts), add_special_tokens=True)
        else:
            found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [e.ids[:limit] for e in found]

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _pieces(self, text: str) -> tuple[int, ...]:
        """At most eight token ids of a name or a short value; longer text keeps both its ends."""
        ids = self._ids(text)
        return ids if len(ids) <= PIECES else ids[: PIECES // 2] + ids[-(PIECES - PIECES // 2) :]

    def save(self, path: str | Path) -> None:
        """Write ``tokenizer.json``."""
        self._tokenizer.save(str(path))

    def to_bytes(self) -> bytes:
        """What ``save`` writes."""
        return self._tokenizer.to_str(pretty=True).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> TextTokenizer:
        """The inverse of ``to_bytes``."""
        return cls(Tokenizer.from_str(content.decode()))

    @classmethod
    def load(cls, path: str | Path) -> TextTokenizer:
        """Read a ``tokenizer.json``."""
        return cls(Tokenizer.from_file(str(path)))

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int = 4096) -> TextTokenizer:
        """Train a tokenizer on code, configurations and graphs; its tokens always have the 256 bytes."""
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)


def padded(rows: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
    """Rows of ids as an int64 array (n, longest), padded with -1; at least one column."""
    out = np.full((len(rows), max([1, *map(len, rows)])), -1, dtype=np.int64)
    for places, row in zip(out, rows, strict=True):
        places[: len(row)] = row
    return out
