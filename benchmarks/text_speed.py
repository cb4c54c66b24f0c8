"""Texts a second that a checkpoint reads, in seconds of one core: reading alone, and a whole prediction.

python benchmarks/text_speed.py --surrogate FOLDER --texts 200 --tokens 1000
"""

from __future__ import annotations

import argparse
import inspect
import time

import numpy as np
import torch

from autotune_rlm.surrogate import load_surrogate
from autotune_rlm.types import Candidate, Device, Task


def programs(count: int, tokens: int, tokenizer: object) -> list[str]:
    """Distinct texts of the given length, cut from the standard library."""
    whole = inspect.getsource(argparse) * (1 + count // 20)
    size = 4 * tokens
    encode = tokenizer.encode  # type: ignore[attr-defined]
    found = []
    for i in range(count):
        text = whole[i * 997 % (len(whole) - size) :][:size]
        share = tokens / max(len(encode(text, limit=10**6)), 1)
        found.append(text[: int(size * min(share, 1.0))])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--surrogate", help="checkpoint; default: the bundled one")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    surrogate = load_surrogate(args.surrogate)
    tokenizer = surrogate.checkpoint.tokenizer
    texts = programs(args.texts, args.tokens, tokenizer)
    lengths = [len(x) for x in tokenizer.encode_batch(texts, limit=10**6)]
    task = Task(kernel="program", device=Device(name="cpu"), language="python", metric="peak_bytes")
    surrogate.predict(task, [Candidate({}, text=texts[0])])
    before = time.process_time()
    surrogate.predict(task, [Candidate({}, text=t) for t in texts])
    spent = time.process_time() - before
    print(
        f"{len(texts)} texts of {np.mean(lengths):.0f} tokens: {len(texts) / spent:.0f} a second of one "
        "core"
    )


if __name__ == "__main__":
    main()
