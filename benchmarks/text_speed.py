"""How many texts of 1,000 tokens a second the bundled model reads.

    python benchmarks/text_speed.py --texts 400

Prints texts a second of CPU time, of one thread; twice that is what two free cores give.
"""

from __future__ import annotations

import argparse
import ast
import random
import sysconfig
import time
from pathlib import Path

import torch

from autotune_rlm.regression import RLM
from autotune_rlm.surrogate.checkpoint import load_checkpoint
from autotune_rlm.surrogate.tokenizer import padded


def texts_of(count: int, tokens: int) -> list[str]:
    """Different texts of about that many tokens, cut from the standard library."""
    tokenizer = load_checkpoint().tokenizer
    library = "\n".join(
        p.read_text(errors="replace")
        for p in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    )
    ids = len(tokenizer.encode_batch([library[:200_000]], limit=10**9)[0])
    length = int(tokens * 200_000 / ids)
    rng = random.Random(0)
    starts = [rng.randrange(len(library) - length) for _ in range(count)]
    return [library[s : s + length] for s in starts]


def programs_of(count: int, tokens: int) -> list[str]:
    """Different Python programs of about that many tokens: whole statements of the standard library."""
    found: list[str] = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        text = path.read_text(errors="replace")
        lines, start = text.splitlines(keepends=True), 0
        for node in ast.parse(text).body:
            program = "".join(lines[start : node.end_lineno])
            if len(program) > 3 * tokens:
                found += [program] if len(program) < 6 * tokens else []
                start = node.end_lineno or start
    return found[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--tokens", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = RLM.load()
    network = load_checkpoint().network
    print(f"metric {model.targets[0]}, network reads texts: {network.text is not None}")
    model.predict(texts_of(8, arguments.tokens))
    texts = texts_of(arguments.texts, arguments.tokens)
    programs = programs_of(arguments.texts, arguments.tokens)
    for name, some in (("fragments", texts), ("programs that parse", programs)):
        started = time.process_time()
        model.predict(some)
        spent = time.process_time() - started
        print(f"{len(some) / spent:.0f} {name} of about {arguments.tokens} tokens a CPU second")
    if network.text is None:
        return
    tokenizer, limit = load_checkpoint().tokenizer, network.config.max_text
    started = time.process_time()
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            ids = tokenizer.encode_batch(texts[start : start + 32], limit=limit)
            network.read_texts(torch.from_numpy(padded(ids)))
    spent = time.process_time() - started
    print(
        f"{len(texts) / spent:.0f} a CPU second by the network's reader alone, tokenizer included"
    )


if __name__ == "__main__":
    main()
