"""Registers of the binary that Triton would make, estimated from the facts of the IR."""

from __future__ import annotations

import math

from ._products import Family, fma_tile, is_chained, item_bytes, redundancy, turned_bytes, warps_of
from ._shared import LEAST_COPIED
from ._types import Dot, KernelFacts


def registers_per_thread(
    facts: KernelFacts, family: Family, *, num_warps: int
) -> tuple[float, float]:
    """Registers of a thread, and how many more it would like than it can have.

    Returns:
        ``(registers, excess)``: the estimate within the device's limit, and the words above it,
        which spill to memory.
    """
    weights = _WEIGHTS[family.vendor if family.warp * family.registers != 32 * 196608 else "rdna"]
    terms = register_terms(facts, family, num_warps=num_warps)
    narrow = _narrow_words(facts, family, num_warps)
    wanted = sum(weights[name] * value for name, value in terms.items()) + narrow
    if (held := narrow + _held_words(facts, family, num_warps)) > _GIVEN_UP:
        wanted = max(wanted, held)
    limit = min(family.most_registers, family.registers // (num_warps * family.warp))
    return min(max(wanted, _MIN_COUNT), limit), max(0.0, wanted - limit)


def register_terms(facts: KernelFacts, family: Family, *, num_warps: int) -> dict[str, float]:
    """What registers go to, mostly in words of a thread; the weights are fitted.

    Returns:
        By name: ``base``, 1; ``argument``: pointers; ``loop``: loops; ``code``: square root of the
        operations in the IR; ``special``: whether special functions are called; ``reduction``: bytes
        of an element that is reduced; ``load``: all that is loaded and goes to no product; ``scan``
        and ``reduced``: the largest such operand. ``data`` and ``index``: values and addresses at the
        peak, in a kernel with products ``product_data`` and ``product_index``, with ``accumulator``
        (or ``read_back`` from tensor memory), ``operand``: square root of a warp's part of the
        factors, and ``turned``: factors that ``wgmma`` cannot read as they were loaded.
    """
    threads = num_warps * family.warp
    words = 4.0 * threads
    data = max(facts.live_bytes - facts.accumulator_bytes, 0.0) / words
    index = min(facts.live_index_bytes / words, _MAX_INDEX)
    met = [
        (r.kind, math.prod(r.shape) * r.operands * r.item_bytes / words) for r in facts.reductions
    ]
    terms = {
        "base": 1.0,
        "argument": float(len({a.argument for a in facts.accesses})),
        "loop": float(len(facts.loops)),
        "code": math.sqrt(min(facts.operations, _MAX_CODE)),
        "special": float(facts.special_ops > 0),
        "reduction": float(max((r.item_bytes for r in facts.reductions), default=0)),
        "load": sum(
            a.distinct * a.item_bytes / words
            for a in facts.accesses
            if a.kind == "load" and a.feeds_dot != "load"
        ),
        "reduced": max((size for kind, size in met if kind == "reduce"), default=0.0),
        "scan": max((size for kind, size in met if kind != "reduce"), default=0.0),
    }
    main = max(facts.dots, key=lambda d: d.flops, default=None)
    if main is None:
        return terms | {"data": data, "index": index}
    repeated = max(redundancy(facts, family, dot, num_warps) for dot in facts.dots)
    results = facts.accumulator_bytes
    if is_chained(facts, main):
        carried = min(results, max((loop.carried_bytes for loop in facts.loops), default=0.0))
        results = _CARRIED * carried + _PASSING * (results - carried)
    in_tensor_memory = family.uses_tensor_memory and family.is_async(main, num_warps)
    return terms | {
        "read_back" if in_tensor_memory else "accumulator": results * repeated / words,
        "product_data": data * repeated,
        "product_index": index,
        "operand": max(_operand_words(facts, family, dot, num_warps) for dot in facts.dots) ** 0.5,
        "turned": max(turned_bytes(facts, family, dot, num_warps) for dot in facts.dots) / words,
    }


def _narrow_words(facts: KernelFacts, family: Family, num_warps: int) -> float:
    """Words of a thread for a product's loads that are too narrow to be copied past the registers."""
    if family.vendor != "cuda":
        return 0.0
    loads = [
        a.distinct
        for a in facts.accesses
        if a.feeds_dot == "load" and a.align < a.run and a.width < LEAST_COPIED and not a.descriptor
    ]
    return _NARROW * sum(loads) / (num_warps * family.warp)


def _held_words(facts: KernelFacts, family: Family, num_warps: int) -> float:
    """Words of a thread for results and one product's factors, where the compiler may hold them at once.

    It does so for ``mma``, and for multiply-adds whose factors are converted first.
    """
    own = [
        dot
        for dot in facts.dots
        if not family.is_async(dot, num_warps) and not (family.is_fma(dot) and dot.a == "f32")
    ]
    if not own or family.vendor != "cuda":
        return 0.0
    factors = max(_operand_words(facts, family, dot, num_warps) for dot in own)
    return factors + facts.accumulator_bytes / (4.0 * num_warps * family.warp)


def _operand_words(facts: KernelFacts, family: Family, dot: Dot, num_warps: int) -> float:
    """Words of a product's factors that a thread holds; ``wgmma`` takes them from shared memory."""
    if family.is_fma(dot):
        return dot.k * sum(fma_tile(dot, family, num_warps))
    rows, columns = warps_of(facts, family, dot, num_warps)
    first = max(16.0, dot.m / rows) * item_bytes(dot.a)
    if dot.a_from == "computed" and is_chained(facts, dot):
        first = 0.0  # it lies where the result that it is computed of lay
    second = max(8.0, dot.n / columns) * item_bytes(dot.b)
    if family.is_async(dot, num_warps):
        first, second = 0.0 if dot.a_from == "load" else first, 0.0
    return (first + second) * dot.k / (4.0 * family.warp)


_CARRIED, _PASSING = 1.15, 0.81
"""Weights of chained products' results that an iteration hands on, and of those that the next product
takes up, over those of other products. From the spills of attention kernels for sm_90."""
_GIVEN_UP = 540.0
"""Words from which ptxas gives up: it keeps 32 or 64 registers and almost everything in memory. Of 111
compiled attentions with heads of 64 and 128 those three do it that hold 576 words, and none that holds
416 or less; of five products for sm_75 those three that hold 704 and more, and none of 528 or less."""
_NARROW = 2.0
"""Words of an element that is loaded alone: its value and a part of its address. Of ten recorded binaries
of fp16 products whose rows begin anywhere, those with 40 to 64 such elements need 70 to 255 registers,
those with 256 and 288 spill 668 and 828 words beyond 255."""
_MIN_COUNT = 6.0
_MAX_INDEX = 200.0  # words of addresses beyond which they are computed anew
_MAX_CODE = 400  # operations beyond which a longer kernel needs no more at once
_WEIGHTS = {
    "cuda": {
        **{"base": 1.63, "argument": 1.04, "loop": 3.23, "code": 1.53, "special": 0.804},
        **{"reduction": 0.247, "load": 0.104, "reduced": 0.29, "scan": 2.1, "data": 0.421},
        **{"index": 0.218, "accumulator": 1.17, "read_back": 0.722, "product_data": 0.0913},
        **{"product_index": 0.19, "operand": 3.7, "turned": 0.386},
    },
    "hip": {
        **{"base": 0.0, "argument": 0.115, "loop": 2.07, "code": 1.04, "special": 2.99},
        **{"reduction": 0.0273, "load": 0.706, "reduced": 0.152, "scan": 5.63, "data": 0.492},
        **{"index": 0.207, "accumulator": 2.31, "read_back": 0.0, "product_data": 0.176},
        **{"product_index": 0.299, "operand": 7.68, "turned": 0.0},
    },
    "rdna": {
        **{"base": 0.0, "argument": 0.088, "loop": 0.496, "code": 0.95, "special": 3.48},
        **{"reduction": 0.204, "load": 0.672, "reduced": 0.739, "scan": 10.1, "data": 0.309},
        **{"index": 0.119, "accumulator": 3.08, "read_back": 0.0, "product_data": 0.0},
        **{"product_index": 0.365, "operand": 1.87, "turned": 0.0},
    },
}
"""Fitted by mean absolute logarithm, each kernel with equal weight, to recorded compilations of the suite
and of kernels from packages; ``benchmarks/fit_registers.py``. RDNA's of products rest on four kernels."""
