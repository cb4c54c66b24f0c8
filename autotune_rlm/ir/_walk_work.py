"""Operations that work: loads and stores, matrix products, reductions."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from ._live import Uses
from ._offsets import Offsets
from ._parse import Op, Type
from ._samples import SAMPLES
from ._types import Access, Dot, Reduction
from ._values import MEMORY, NAN, UNKNOWN, Number, Value, contiguous, distinct, is_zero
from ._walk_values import ValueWalk, attribute

ACCESSES = {
    **dict.fromkeys(("tt.load", "tt.descriptor_load", "tt.descriptor_gather"), "load"),
    **dict.fromkeys(("tt.store", "tt.descriptor_store", "tt.descriptor_scatter"), "store"),
    **dict.fromkeys(("tt.descriptor_reduce", "tt.atomic_rmw", "tt.atomic_cas"), "atomic"),
}

LOADED = 1024.0
"""An integer that a loop's bounds need and that lies in memory, such as the length of a sequence."""

MEETING = {
    "tt.reduce": "reduce",
    "tt.scan": "scan",
    "tt.gather": "gather",
    "tt.histogram": "histogram",
}


class WorkWalk(ValueWalk):
    """Counts what operations move and compute."""

    def _access(self, op: Op) -> None:
        kind, pointer = ACCESSES[op.name], op.operands[0]
        address, about = self._value(pointer), self._types[pointer]
        is_block = about.kind == "block"
        masks = [o for o in op.operands[1:] if self._types[o].element == "i1"]
        if about.element == "i1" and kind != "load" and not is_block:
            masks = masks[1:]
        if is_block:
            address = self._block_address(op, address)
        active: Any = self._value(masks[0]).base if masks else 1.0
        active = np.clip(np.where(np.isnan(active), 1.0, active), 0.0, 1.0)
        if op.results:
            shape = self._types[op.results[0]].shape
            rank = len(shape)
            strides = address.strides if not is_block else (NAN,) * rank
            varies = [not is_zero(s) for s in strides] + [True] * (rank - len(strides))
            value = Value(NAN, tuple(NAN if v else 0.0 for v in varies[:rank]))
            if self._guessed and not shape and about.element[0] == "i" and about.element != "i1":
                value = Value(self._loaded(op), root=MEMORY)
            self._set(op, value)
            about = Type(shape, about.element, about.kind)
        if not self._counting:
            return
        weight = self._weight
        times = self._times()
        if times <= 0:
            return
        if kind != "load":
            self._worked |= weight > 0
            self.written = self.written + weight * active
        effective = float((weight * active).mean()) / times
        axis, run = contiguous(address, about.shape)
        elements = about.size if is_block else distinct(address, about.shape)
        name = self._names.get(address.root, "")
        feeds = self._uses.feeds.get(op.results[0], "") if op.results else ""
        self._accesses.append(
            Access(
                kind=kind,
                argument=name,
                shape=about.shape,
                item_bytes=about.item_bytes,
                times=times,
                active=effective,
                distinct=elements,
                axis=axis,
                run=run,
                align=self._aligned(address, axis, masks) if run > 1 and not is_block else 16,
                loop=self._loop,
                masked=bool(masks),
                descriptor=is_block,
                feeds_dot=feeds,
                indirection=self._uses.indirection(op) if feeds else 0,
            )
        )
        total = elements * about.item_bytes * effective * times
        self._work = self._work + weight * active * elements * about.item_bytes * 4.0
        self._span(kind, name, address, about, weight * active, total)

    def _aligned(self, address: Value, axis: int, masks: list[int]) -> int:
        """Elements along an axis that a thread may take at once, see ``Access.align``."""
        rest = [s for i, s in enumerate(address.strides) if i != axis]
        known = self._divides([address.base, *rest])
        mask = self._value(masks[0]) if masks else UNKNOWN
        if axis < len(mask.alike) and not is_zero(mask.strides[axis]):
            known = min(known, int(mask.alike[axis]))
        return known

    def _loaded(self, op: Op) -> Number:
        """An integer in memory: of an array of offsets by its index, else always the same."""
        address = self._value(op.operands[0])
        known = self._offsets.get(address.root)
        if known is None:
            return LOADED
        index: Number = self._places.get(op.operands[0], address.base)
        return self._piece(address.root, known) * np.where(
            np.isnan(index), 1.0, index + known.first
        )

    def _piece(self, array: int, known: Offsets) -> float:
        """How long the pieces are that an array parts: equally, where the shapes are known."""
        elements = math.prod(self._shapes.get(self._names.get(array, ""), (0,)))
        shapes = [self._shapes.get(self._names.get(a, ""), ()) for a in known.parted - {array}]
        parted = max((s for s in shapes if s), key=math.prod, default=())
        length = next((n for n in parted if n > 1), 0)
        return max(1.0, length // max(elements - known.more, 1)) if elements and length else LOADED

    def _block_address(self, op: Op, address: Value) -> Value:
        """The first element and strides of a block pointer or a descriptor at its indices."""
        indices = [o for o in op.operands[1:] if not self._types[o].shape][: len(address.strides)]
        if op.name.startswith("tt.descriptor") and len(indices) == len(address.strides):
            base = address.base
            for index, stride in zip(indices, address.strides, strict=True):
                at = self._value(index)
                base = base + (NAN if at.root == MEMORY else at.base) * stride
            return Value(base, address.strides, address.root)
        return address

    def _span(
        self, kind: str, name: str, address: Value, about: Type, weight: Any, total: float
    ) -> None:
        """The range of memory that an access touches over the whole grid."""
        low = np.zeros(SAMPLES) + address.base
        high = low + 1.0
        for stride, n in zip(address.strides, about.shape, strict=False):
            reach = stride * (n - 1)
            low, high = low + np.minimum(reach, 0), high + np.maximum(reach, 0)
        touched = (weight > 0) & np.isfinite(low) & np.isfinite(high)
        unknown = not touched.any() or not np.isfinite(low[weight > 0]).all()
        entry = self._spans.setdefault(
            (name, "read" if kind == "load" else "write"),
            [math.inf, -math.inf, 0.0, float(about.item_bytes)],
        )
        entry[2] += total
        if unknown:
            entry[0], entry[1] = -math.inf, math.inf
        else:
            entry[0] = min(entry[0], float(low[touched].min()))
            entry[1] = max(entry[1], float(high[touched].max()))

    def _make_block(self, op: Op) -> None:
        """``tt.make_tensor_descriptor`` and ``tt.make_tensor_ptr``: base, sizes, strides, offsets."""
        source = self._value(op.operands[0])
        rank = len(self._types[op.results[0]].shape)
        strides = [self._value(o) for o in op.operands[1 + rank : 1 + 2 * rank]]
        base = source.base
        for offset, stride in zip(op.operands[1 + 2 * rank :], strides, strict=False):
            base = base + self._value(offset).base * stride.base
        self._set(op, Value(base, tuple(s.base for s in strides), source.root))

    def _advance(self, op: Op) -> None:
        source = self._value(op.operands[0])
        base = source.base
        for offset, stride in zip(op.operands[1:], source.strides, strict=False):
            base = base + self._value(offset).base * stride
        self._set(op, Value(base, source.strides, source.root))

    def _dot(self, op: Op) -> None:
        result = self._types[op.results[0]]
        self._set(op, Value(NAN, (NAN,) * len(result.shape)))
        if not self._counting or len(op.operands) < 2:
            return
        factors = [o for o in Uses.operands_of(op) if len(self._types[o].shape) >= 2]
        a, b = self._types[op.operands[0]], self._types[op.operands[1]]
        if op.name == "tt.dot_scaled":
            b = next(
                (
                    self._types[o]
                    for o in factors[1:]
                    if self._types[o].shape[-1:] == result.shape[-1:]
                ),
                b,
            )
        times = self._times()
        precision = re.search(r"inputPrecision = (\w+)", op.text)
        unsaid = "ieee" if a.element == "f32" and op.name == "tt.dot" else ""  # MLIR omits defaults
        k = a.shape[-1]
        if op.name == "tt.dot_scaled" and "e2m1" in op.text:
            k *= 2
        second = op.operands[1] if op.name == "tt.dot" else factors[-1]
        dot = Dot(
            m=result.shape[-2],
            n=result.shape[-1],
            k=k,
            batch=result.size // (result.shape[-2] * result.shape[-1]),
            a=a.element,
            b=b.element,
            acc=result.element,
            precision=precision[1] if precision else unsaid,
            scaled=op.name == "tt.dot_scaled",
            times=times,
            loop=self._loop,
            a_from=self._uses.source(op.operands[0]),
            b_from=self._uses.source(second),
        )
        self._dots.append(dot)
        self._work = self._work + self._weight * (dot.flops / max(times, 1e-30)) / 64.0

    def _meet(self, op: Op) -> None:
        """Reductions, scans, gathers, histograms: elements of an axis meet."""
        axis = int(attribute(op, "axis", 0))
        source = self._types[op.operands[0]]
        strides = self._value(op.operands[0]).strides
        if op.name == "tt.reduce":
            strides = tuple(s for i, s in enumerate(strides) if i != axis)
        for result in op.results:
            rank = len(self._types[result].shape)
            kept = strides if len(strides) == rank else (NAN,) * rank
            self._values[result] = Value(NAN, tuple(0.0 if is_zero(s) else NAN for s in kept))
        if self._counting:
            self._reductions.append(
                Reduction(
                    kind=MEETING[op.name],
                    shape=source.shape,
                    axis=axis,
                    operands=max(1, len(op.results)),
                    item_bytes=source.item_bytes,
                    times=self._times(),
                    result=self._types[op.results[0]].size,
                )
            )
