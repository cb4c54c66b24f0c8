"""Walks a function's operations and counts what they do, on average over the programs of a grid.

Programs, and iterations of loops, are sampled: every value stands for ``SAMPLES`` of them at once. Loop
bounds and conditions that depend on the program (causal masks, grouped orders, persistent loops) so
become expectations.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ._live import Uses, operations, peak
from ._parse import Block, Function, Op, Type
from ._types import Access, Dot, KernelFacts, Loop, Reduction
from ._values import NAN, UNKNOWN, Number, Value, add, arithmetic, compare

__all__ = ["Walk"]

SAMPLES = 64
_UNKNOWN_TRIPS = 8.0  # of a loop whose bounds were loaded from memory
_MOST_TRIPS = 2.0**40
# fractional parts of multiples of powers of this number fill a cube evenly; M. Roberts, "The
# unreasonable effectiveness of quasirandom sequences" (2018)
_GOLDEN = 1.1673039782614187  # of x**6 = x + 1

_SPECIAL = frozenset(
    {
        *(
            "math.exp",
            "math.exp2",
            "math.expm1",
            "math.log",
            "math.log2",
            "math.log1p",
            "math.log10",
        ),
        *("math.sin", "math.cos", "math.tan", "math.tanh", "math.sinh", "math.cosh", "math.erf"),
        *("math.asin", "math.acos", "math.atan", "math.atan2", "math.powf", "math.cbrt"),
        *("math.sqrt", "math.rsqrt", "arith.divf", "arith.remf", "tt.precise_divf"),
        *("tt.precise_sqrt", "tt.extern_elementwise"),
    }
)
_CONVERT = frozenset(
    {
        *("arith.extf", "arith.truncf", "arith.sitofp", "arith.uitofp", "arith.fptosi"),
        *("arith.fptoui", "tt.fp_to_fp"),
    }
)
_SAME = (
    frozenset(
        {
            "arith.extsi",
            "arith.extui",
            "arith.trunci",
            "arith.index_cast",
            "tt.bitcast",
            "arith.bitcast",
        }
    )
    | _CONVERT
)
_FLOAT = frozenset(
    {
        *("arith.addf", "arith.subf", "arith.mulf", "arith.maxnumf", "arith.minnumf"),
        *("arith.maximumf", "arith.minimumf", "arith.negf", "arith.cmpf", "arith.select"),
        *("math.absf", "math.fma", "math.floor", "math.ceil", "math.round", "math.trunc"),
        *("tt.clampf", "tt.elementwise_inline_asm", "arith.maxf", "arith.minf"),
    }
)
_MEETING = {
    "tt.reduce": "reduce",
    "tt.scan": "scan",
    "tt.gather": "gather",
    "tt.histogram": "histogram",
}
_MOVING = frozenset({"tt.trans", "tt.reshape", "tt.join", "tt.split", "tt.cat"})
_AXES = {"x": 0, "y": 1, "z": 2}


class Walk:
    """The facts of one function for one launch.

    Args:
        function: The kernel.
        functions: All functions of its module, for calls that were not inlined.
        arguments: Names of the function's arguments in order.
        scalars: Numbers by argument.
        shapes: Shapes of tensors by argument, where known.
        grid: Programs along the three axes.

    Attributes:
        written: By sample, how much of its stores a program does; filled by ``facts``.
    """

    def __init__(
        self,
        function: Function,
        functions: Mapping[str, Function],
        *,
        arguments: Sequence[str],
        scalars: Mapping[str, float],
        shapes: Mapping[str, tuple[int, ...]],
        grid: tuple[int, int, int],
    ) -> None:
        self._function, self._functions = function, functions
        self._arguments, self._shapes = list(arguments), shapes
        self.grid = grid
        self._types = function.types
        self._values: list[Value] = [UNKNOWN] * len(self._types)
        self._uses = Uses(function)
        self._programs, self._random = _samples(grid)
        self._weight: Any = np.ones(SAMPLES)
        self._loop = -1
        self._counting = True
        self._counts: dict[str, float] = defaultdict(float)
        self._work: Any = np.zeros(SAMPLES)
        self._dots: list[Dot] = []
        self._accesses: list[Access] = []
        self._reductions: list[Reduction] = []
        self._loops: list[dict[str, Any]] = []
        self._loop_ids: dict[int, int] = {}
        self._spans: dict[tuple[str, str], list[float]] = {}
        self.assumed: list[str] = []
        self._depth = 0
        self._worked: Any = np.zeros(SAMPLES, dtype=bool)
        self.written: Any = np.zeros(SAMPLES)
        for number, name in zip(function.blocks[0].arguments, self._arguments, strict=False):
            kind = self._types[number]
            root = number if kind.kind != "value" else -1
            base = scalars.get(name, 0.0 if root >= 0 else NAN)
            strides = (0.0,) * len(kind.shape)
            if kind.kind == "block":
                strides = (NAN,) * (len(kind.shape) - 1) + (1.0,)
            self._values[number] = Value(base, strides, root)
        self._names = dict(zip(function.blocks[0].arguments, self._arguments, strict=False))

    def set_programs(self, axis: int, ids: Any) -> None:
        """Look at these programs along an axis, shape (``SAMPLES``,), in place of a sample."""
        self._programs[axis] = np.asarray(ids, dtype=float)

    def facts(self) -> KernelFacts:
        """Walk the function and say what it does."""
        with np.errstate(all="ignore"):
            self._blocks(self._function.blocks)
        data, index = self._register_bytes()
        peaks: dict[int, Any] = {}
        most = peak(self._function.blocks, data, index, loops=peaks)
        loops = tuple(self._loop_facts(record, peaks) for record in self._loops)
        work = self._work
        mean = float(work.mean())
        everything = list(operations(self._function.blocks))
        return KernelFacts(
            grid=self.grid,
            dots=tuple(self._dots),
            accesses=tuple(self._accesses),
            loops=loops,
            reductions=tuple(self._reductions),
            live_bytes=most.data,
            live_index_bytes=most.addresses,
            accumulator_bytes=self._accumulators(everything),
            largest=max((t.size for t in self._types), default=1),
            operations=len(everything),
            imbalance=float(work.max()) / mean if mean > 0 else 1.0,
            idle=float(1.0 - self._worked.mean()),
            assumed=tuple(dict.fromkeys(self.assumed)),
            **self._memory(),
            **{n: self._counts[n] for n in _COUNTED},
        )

    # Regions.

    def _blocks(self, blocks: Sequence[Block]) -> None:
        if len(blocks) == 1:
            self._ops(blocks[0].ops)
            return
        reach: dict[str, Any] = {block.label: np.zeros(SAMPLES) for block in blocks}
        whole = self._weight
        for i, block in enumerate(blocks):
            self._weight = whole if i == 0 else reach[block.label]
            if not np.any(self._weight):
                continue
            self._ops(block.ops)
            self._branch(block.ops[-1] if block.ops else None, blocks, reach)
        self._weight = whole

    def _branch(self, op: Op | None, blocks: Sequence[Block], reach: dict[str, Any]) -> None:
        if op is None or not op.name.startswith("cf."):
            return
        labels = re.findall(r"\^\w+", op.text)
        if op.name == "cf.cond_br" and len(labels) == 2:
            share = self._share(op.operands[0])
            shares = [share, 1.0 - share]
            given = op.operands[1:]
        else:
            shares, given = [1.0], list(op.operands)
        for label, share in zip(labels, shares, strict=False):
            target = next((b for b in blocks if b.label == label), None)
            if target is None:
                continue
            reach[label] = reach[label] + self._weight * share
            for number in target.arguments:
                if given:
                    self._values[number] = self._values[given.pop(0)]

    def _ops(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self._op(op)

    def _op(self, op: Op) -> None:
        name = op.name
        handler = _HANDLERS.get(name)
        if handler is not None:
            handler(self, op)
            return
        if name in arithmetic and len(op.operands) == 2:
            self._arithmetic(op)
        elif name in _SAME and op.operands:
            source = self._values[op.operands[0]]
            if self._types[op.results[0]].is_float or self._types[op.operands[0]].is_float:
                source = Value(source.base, tuple(0.0 if s == 0 else NAN for s in _plain(source)))
            self._set(op, source)
            if name in _CONVERT:
                self._count("conversions", op)
        elif op.results and op.operands:
            self._elementwise(op)

    # Scalars and affine tensors.

    def _set(self, op: Op, value: Value) -> None:
        self._values[op.results[0]] = value

    def _value(self, number: int) -> Value:
        return self._values[number] if number >= 0 else UNKNOWN

    def _share(self, number: int) -> Any:
        """How often a condition holds, by sample; a half where it is not known."""
        base = self._value(number).base
        return np.where(np.isnan(base), 0.5, np.clip(base, 0.0, 1.0))

    def _constant(self, op: Op) -> None:
        kind = self._types[op.results[0]]
        text = op.text.strip()
        match = re.match(r"(?:dense<)?(-?[\w.+\-]+|true|false)>?", text)
        self._set(op, Value(_number(match[1]) if match else NAN, (0.0,) * len(kind.shape)))

    def _program_id(self, op: Op) -> None:
        axis = re.search(r"\b([xyz])\b", op.text)
        self._set(op, Value(self._programs[_AXES[axis[1] if axis else "x"]]))

    def _num_programs(self, op: Op) -> None:
        axis = re.search(r"\b([xyz])\b", op.text)
        self._set(op, Value(float(self.grid[_AXES[axis[1] if axis else "x"]])))

    def _range(self, op: Op) -> None:
        start = re.search(r"start = (-?\d+)", op.text)
        self._set(op, Value(float(start[1]) if start else 0.0, (1.0,)))

    def _splat(self, op: Op) -> None:
        source = self._value(op.operands[0])
        shape = self._types[op.results[0]].shape
        self._set(op, Value(source.base, (0.0,) * len(shape), source.root))

    def _expand(self, op: Op) -> None:
        source = self._value(op.operands[0])
        axis = int(_attribute(op, "axis", 0))
        strides = list(source.strides)
        strides.insert(axis, 0.0)
        self._set(op, Value(source.base, tuple(strides), source.root))

    def _broadcast(self, op: Op) -> None:
        source = self._value(op.operands[0])
        before = self._types[op.operands[0]].shape
        after = self._types[op.results[0]].shape
        strides = tuple(
            0.0 if n == 1 and m > 1 else s
            for n, m, s in zip(before, after, source.strides, strict=False)
        )
        self._set(op, Value(source.base, strides, source.root))

    def _trans(self, op: Op) -> None:
        source = self._value(op.operands[0])
        order = re.search(r"order = array<i32: ([\d, ]+)>", op.text)
        axes = [int(i) for i in order[1].split(",")] if order else range(len(source.strides))[::-1]
        if len(source.strides) == len(list(axes)):
            source = Value(source.base, tuple(source.strides[i] for i in axes), source.root)
        self._set(op, source)
        self._count("moved", op)

    def _reshape(self, op: Op) -> None:
        source = self._value(op.operands[0])
        before = self._types[op.operands[0]].shape
        after = self._types[op.results[0]].shape
        strides = _reshaped(before, source.strides, after)
        self._set(op, Value(source.base, strides, source.root))
        if [n for n in before if n > 1] != [n for n in after if n > 1]:
            self._count("moved", op)

    def _join(self, op: Op) -> None:
        first = self._value(op.operands[0])
        shape = self._types[op.results[0]].shape
        strides = (*first.strides, NAN)[: len(shape)]
        self._set(op, Value(first.base, strides + (NAN,) * (len(shape) - len(strides)), first.root))
        self._count("moved", op)

    def _split(self, op: Op) -> None:
        source = self._value(op.operands[0])
        for result in op.results:
            rank = len(self._types[result].shape)
            self._values[result] = Value(source.base, source.strides[:rank], source.root)
        self._count("moved", op)

    def _arithmetic(self, op: Op) -> None:
        a, b = self._value(op.operands[0]), self._value(op.operands[1])
        kind = self._types[op.results[0]]
        if kind.element == "i1":
            self._set(op, _logic(op.name, a, b))
            return
        found = arithmetic[op.name](a, b)
        found.root = -1
        self._set(op, found)
        if kind.shape:
            self._count("int_ops", op)

    def _addptr(self, op: Op) -> None:
        a, b = self._value(op.operands[0]), self._value(op.operands[1])
        found = add(a, b)
        found.root = a.root
        self._set(op, found)
        if self._types[op.results[0]].shape:
            self._count("int_ops", op)

    def _cmpi(self, op: Op) -> None:
        predicate = op.text.split(",")[0].strip()
        a, b = self._value(op.operands[0]), self._value(op.operands[1])
        shape = self._types[op.results[0]].shape
        self._set(op, compare(predicate, a, b, shape))
        if shape:
            self._count("int_ops", op)

    def _select(self, op: Op) -> None:
        condition, a, b = (self._value(o) for o in op.operands[:3])
        kind = self._types[op.results[0]]
        share = condition.base
        base = np.where(np.isnan(share), NAN, np.where(np.asarray(share) > 0.5, a.base, b.base))
        longer = a.strides if len(a.strides) >= len(b.strides) else b.strides
        mask = condition.strides or (0.0,) * len(longer)
        strides = tuple(
            NAN if not (_zero(x) and _zero(y) and _zero(z)) else 0.0
            for x, y, z in zip(a.strides or longer, b.strides or longer, mask, strict=False)
        )
        if not kind.is_float and a.is_affine and not _uniform_strides(a):
            strides = a.strides  # such as where(offs < n, offs, 0)
        self._set(op, Value(float(base) if base.ndim == 0 else base, strides, max(a.root, b.root)))
        if kind.shape:
            self._count("float_ops" if kind.is_float else "int_ops", op)

    def _elementwise(self, op: Op) -> None:
        """An operation without a rule of its own: its results vary where its operands do."""
        for result in op.results:
            kind = self._types[result]
            rank = len(kind.shape)
            varies = [False] * rank
            for operand in op.operands:
                strides = self._value(operand).strides
                if len(strides) == rank:
                    varies = [v or not _zero(s) for v, s in zip(varies, strides, strict=True)]
                elif rank and len(strides):
                    varies = [True] * rank
            self._values[result] = Value(NAN, tuple(NAN if v else 0.0 for v in varies))
        kind = self._types[op.results[0]]
        if not kind.shape:
            self._values[op.results[0]] = Value(self._scalar(op))
        elif op.name in _SPECIAL:
            self._count("special_ops", op)
        elif kind.is_float or op.name in _FLOAT:
            self._count("float_ops", op)
        else:
            self._count("int_ops", op)

    def _scalar(self, op: Op) -> Number:
        """What a scalar operation on floating-point numbers gives, where it is easily known."""
        function = _SCALARS.get(op.name)
        if function is None:
            return NAN
        try:
            return function(*(self._value(o).base for o in op.operands))
        except (TypeError, ValueError, ZeroDivisionError, OverflowError):
            return NAN

    def _count(self, what: str, op: Op) -> None:
        if self._counting:
            kind = self._types[op.results[0]]
            if kind.shape:
                n = _distinct(self._values[op.results[0]], kind.shape)
                self._counts[what] += n * float(self._weight.mean()) * len(op.results)

    # Memory.

    def _load(self, op: Op) -> None:
        self._access("load", op)

    def _store(self, op: Op) -> None:
        self._access("store", op)

    def _atomic(self, op: Op) -> None:
        self._access("atomic", op)

    def _access(self, kind: str, op: Op) -> None:
        pointer = op.operands[0]
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
            varies = [not _zero(s) for s in strides] + [True] * (rank - len(strides))
            value = Value(NAN, tuple(NAN if v else 0.0 for v in varies[:rank]))
            self._set(op, value)
            about = Type(shape, about.element, about.kind)
        if not self._counting:
            return
        weight = self._weight
        times = float(weight.mean())
        if times <= 0:
            return
        if kind != "load":
            self._worked |= weight > 0
            self.written = self.written + weight * active
        effective = float((weight * active).mean()) / times
        axis, run = _contiguous(address, about.shape)
        distinct = _distinct(address, about.shape) if not is_block else about.size
        name = self._names.get(address.root, "")
        self._accesses.append(
            Access(
                kind=kind,
                argument=name,
                shape=about.shape,
                item_bytes=about.item_bytes,
                times=times,
                active=effective,
                distinct=distinct,
                axis=axis,
                run=run,
                loop=self._loop,
                masked=bool(masks),
                descriptor=is_block,
                feeds_dot=self._uses.feeds.get(op.results[0], "") if op.results else "",
            )
        )
        total = distinct * about.item_bytes * effective * times
        self._work = self._work + weight * active * distinct * about.item_bytes * 4.0
        self._span(kind, name, address, about, weight * active, total)

    def _block_address(self, op: Op, address: Value) -> Value:
        """The first element and strides of a block pointer or a descriptor at its indices."""
        indices = [o for o in op.operands[1:] if not self._types[o].shape][: len(address.strides)]
        if op.name.startswith("tt.descriptor") and len(indices) == len(address.strides):
            base = address.base
            for index, stride in zip(indices, address.strides, strict=True):
                base = base + self._value(index).base * stride
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

    # Work on tensors.

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
        times = float(self._weight.mean())
        precision = re.search(r"inputPrecision = (\w+)", op.text)
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
            precision=precision[1] if precision else "",
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
        axis = int(_attribute(op, "axis", 0))
        source = self._types[op.operands[0]]
        strides = self._value(op.operands[0]).strides
        if op.name == "tt.reduce":
            strides = tuple(s for i, s in enumerate(strides) if i != axis)
        for result in op.results:
            rank = len(self._types[result].shape)
            kept = strides if len(strides) == rank else (NAN,) * rank
            self._values[result] = Value(NAN, tuple(0.0 if _zero(s) else NAN for s in kept))
        if self._counting:
            self._reductions.append(
                Reduction(
                    kind=_MEETING[op.name],
                    shape=source.shape,
                    axis=axis,
                    operands=max(1, len(op.results)),
                    item_bytes=source.item_bytes,
                    times=float(self._weight.mean()),
                )
            )

    def _call(self, op: Op) -> None:
        """A call that was not inlined."""
        match = re.search(r"@\"?([^\s(\"]+)", op.text)
        called = self._functions.get(match[1]) if match else None
        if called is not None and self._depth < 8:
            for number, given in zip(called.blocks[0].arguments, op.operands, strict=False):
                self._values[number] = self._values[given]
            self._depth += 1
            self._blocks(called.blocks)
            self._depth -= 1
        for result in op.results:
            self._values[result] = Value(NAN, (NAN,) * len(self._types[result].shape))

    # Control flow.

    def _if(self, op: Op) -> None:
        share = self._share(op.operands[0])
        whole, yields = self._weight, []
        for region, part in zip(op.regions, (share, 1.0 - share), strict=False):
            self._weight = whole * part
            if np.any(self._weight) or not self._counting:
                self._blocks(region)
            yields.append(_yielded(region))
        self._weight = whole
        for i, result in enumerate(op.results):
            sides = [self._value(y[i]) if i < len(y) else UNKNOWN for y in yields]
            then = sides[0]
            other = sides[1] if len(sides) > 1 else UNKNOWN
            better = (
                then if not np.all(np.isnan(then.base)) or float(np.mean(share)) >= 0.5 else other
            )
            condition = self._value(op.operands[0]).base
            base = np.where(np.isnan(condition), NAN, np.where(share > 0.5, then.base, other.base))
            rank = len(self._types[result].shape)
            strides = better.strides if len(better.strides) == rank else (NAN,) * rank
            self._values[result] = Value(base, strides, max(then.root, other.root))

    def _for(self, op: Op) -> None:
        low, high, step = (self._value(o).base for o in op.operands[:3])
        carried = op.operands[3:]
        trips = np.ceil((high - low) / np.where(np.asarray(step) == 0, NAN, step))
        block = op.regions[0][0]
        counter = block.arguments[0]

        def at(iteration: Number) -> None:
            self._values[counter] = Value(low + iteration * step)

        self._loop_body(op, op.regions[0], block.arguments[1:], carried, trips, at)

    def _while(self, op: Op) -> None:
        before, after = op.regions[0], op.regions[1] if len(op.regions) > 1 else op.regions[0]
        starts = [self._value(o) for o in op.operands]
        condition = next((o for o in before[-1].ops if o.name == "scf.condition"), None)
        passed = condition.operands[1:] if condition is not None else []
        for number, start in zip(before[0].arguments, starts, strict=False):
            self._values[number] = start
        deltas = self._while_deltas(before, after, passed)

        def holds(iteration: Any) -> Any:
            for number, start, delta in zip(before[0].arguments, starts, deltas, strict=False):
                self._values[number] = Value(
                    start.base + iteration * delta, start.strides, start.root
                )
            self._quietly(before)
            return self._value(condition.operands[0]).base if condition is not None else NAN

        trips = _first_failure(holds)

        def at(iteration: Number) -> None:
            holds(iteration)
            for number, source in zip(after[0].arguments, passed, strict=False):
                self._values[number] = self._value(source)

        self._loop_body(op, after, [], [], trips, at)
        last = np.where(np.isnan(trips), _UNKNOWN_TRIPS, trips)
        holds(last)
        for result, source in zip(op.results, passed, strict=False):
            self._values[result] = self._value(source)

    def _while_deltas(
        self, before: Sequence[Block], after: Sequence[Block], passed: Sequence[int]
    ) -> list[Number]:
        starts = [self._value(n).base for n in before[0].arguments]
        self._quietly(before)
        for number, source in zip(after[0].arguments, passed, strict=False):
            self._values[number] = self._value(source)
        self._quietly(after)
        ends = [self._value(n).base for n in _yielded(after)]
        return [end - start for start, end in zip(starts, ends, strict=False)]

    def _quietly(self, region: Sequence[Block]) -> None:
        """Evaluate integers and addresses of a region without counting, loops inside left out."""
        counting, self._counting = self._counting, False
        for op in (op for block in region for op in block.ops):
            is_float = self._types[op.results[0]].is_float if op.results else True
            if op.name in ("scf.for", "scf.while") or is_float:
                for result in op.results:
                    rank = len(self._types[result].shape)
                    self._values[result] = Value(NAN, (NAN,) * rank)
            else:
                self._op(op)
        self._counting = counting

    def _loop_body(
        self,
        op: Op,
        region: Sequence[Block],
        arguments: Sequence[int],
        carried: Sequence[int],
        trips: Any,
        at: Callable[[Number], None],
    ) -> None:
        """Count a loop's body, at a sampled iteration, and give its results their last values."""
        trips = np.zeros(SAMPLES) + trips
        known = ~np.isnan(trips)
        if self._counting and not known[self._weight > 0].all():
            self.assumed.append(
                f"a loop whose bounds are loaded from memory runs {_UNKNOWN_TRIPS:.0f} times"
            )
        trips = np.clip(np.where(known, trips, _UNKNOWN_TRIPS), 0, _MOST_TRIPS)
        starts = [self._value(o) for o in carried]
        deltas, starts = self._deltas(region, arguments, starts, at)
        level = self._depth % len(self._random)
        iteration = np.floor(self._random[level] * np.maximum(trips, 1))
        for number, start, delta in zip(arguments, starts, deltas, strict=False):
            moved = start.base if delta is None else start.base + iteration * delta
            strides = start.strides
            if self._types[number].is_float:
                strides = (NAN,) * len(self._types[number].shape)
            self._values[number] = Value(moved, strides, start.root)
        at(iteration)
        whole, outer = self._weight, self._loop
        if self._counting:
            self._loop = self._loop_ids.setdefault(id(op), len(self._loops))
            if self._loop == len(self._loops):
                self._loops.append(self._loop_record(op, region, trips, known, outer))
        self._weight = whole * trips
        self._depth += 1
        if np.any(self._weight > 0):
            self._blocks(region)
        self._depth -= 1
        self._weight, self._loop = whole, outer
        for i, result in enumerate(op.results):
            if i >= len(starts):
                break
            start, delta = starts[i], deltas[i] if i < len(deltas) else None
            end = start.base if delta is None else start.base + trips * delta
            rank = len(self._types[result].shape)
            strides = (NAN,) * rank if self._types[result].is_float else start.strides
            self._values[result] = Value(end, strides, start.root)

    def _deltas(
        self,
        region: Sequence[Block],
        arguments: Sequence[int],
        starts: Sequence[Value],
        at: Callable[[Number], None],
    ) -> tuple[list[Number | None], list[Value]]:
        """How much each carried integer or address grows in an iteration, and the start values.

        The growth is None for floating-point numbers. A start value varies where what follows it does.
        """
        starts = list(starts)
        wanted = [not self._types[n].is_float for n in arguments]
        if not any(wanted):
            return [None] * len(starts), starts
        for number, start in zip(arguments, starts, strict=False):
            self._values[number] = start
        at(0.0)
        self._quietly(region)
        deltas: list[Number | None] = [None] * len(starts)
        ends = [self._value(n) for n in _yielded(region)]
        for i, (want, start, end) in enumerate(zip(wanted, starts, ends, strict=False)):
            if want:
                deltas[i] = end.base - start.base
                strides = tuple(
                    NAN if _zero(s) and not _zero(e) else s
                    for s, e in zip(start.strides, end.strides, strict=False)
                )
                starts[i] = Value(start.base, strides, start.root)
        return deltas, starts

    # Totals.

    def _loop_record(
        self, op: Op, region: Sequence[Block], trips: Any, known: Any, outer: int
    ) -> dict[str, Any]:
        weight = self._weight
        times = float(weight.mean())
        stages = re.search(r"tt\.num_stages = (\d+)", op.attributes + op.text)
        carried = [self._types[n] for n in region[0].arguments if self._types[n].shape]
        return {
            "id": id(op),
            "parent": outer,
            "trips": float((weight * trips).mean()) / times if times > 0 else 0.0,
            "times": times,
            "stages": int(stages[1]) if stages else 0,
            "carried_bytes": float(sum(t.size * t.bytes for t in carried if t.is_float)),
            "known": bool(known.all()),
        }

    def _loop_facts(self, record: dict[str, Any], peaks: Mapping[int, Any]) -> Loop:
        inside = peaks.get(record["id"])
        plain = {k: v for k, v in record.items() if k != "id"}
        return Loop(**plain, live_bytes=inside.data if inside is not None else 0.0)

    def _register_bytes(self) -> tuple[list[float], list[float]]:
        """Bytes of each value in registers: of data, and of integers and addresses."""
        data = [0.0] * len(self._types)
        index = [0.0] * len(self._types)
        for number, kind in enumerate(self._types):
            if not kind.shape or kind.kind == "block" or kind.element == "i1":
                continue
            if self._uses.feeds.get(number) == "load":
                continue
            size = _distinct(self._values[number], kind.shape) * kind.bytes
            if size <= kind.bytes:
                continue
            if kind.is_float or not self._values[number].is_affine:
                data[number] = float(size)
            else:
                index[number] = float(size)
        return data, index

    def _accumulators(self, everything: Sequence[Op]) -> float:
        """Bytes of the products' results, each shape once per loop."""
        by_loop: dict[int, float] = defaultdict(float)
        for dot in self._dots:
            size = dot.m * dot.n * dot.batch * (2 if dot.acc == "f16" else 4)
            by_loop[dot.loop] += size
        return max(by_loop.values(), default=0.0)

    def _memory(self) -> dict[str, float]:
        programs = float(self.grid[0] * self.grid[1] * self.grid[2])
        unique = {"read": 0.0, "write": 0.0}
        for (name, way), (low, high, per_program, item) in self._spans.items():
            total = per_program * programs
            size = total
            if high > low and np.isfinite(high - low):
                size = min(size, (high - low) * item)
            shape = self._shapes.get(name)
            if shape is not None:
                size = min(size, math.prod(shape) * item)
            unique[way] += size
        return {
            "unique_bytes": unique["read"] + unique["write"],
            "unique_read_bytes": unique["read"],
        }


_COUNTED = ("float_ops", "int_ops", "special_ops", "conversions", "moved")

_SCALARS: dict[str, Callable[..., Any]] = {
    "arith.addf": lambda a, b: a + b,
    "arith.subf": lambda a, b: a - b,
    "arith.mulf": lambda a, b: a * b,
    "arith.divf": lambda a, b: a / b,
    "arith.maxnumf": np.maximum,
    "arith.minnumf": np.minimum,
    "math.ceil": np.ceil,
    "math.floor": np.floor,
    "math.sqrt": np.sqrt,
    "math.log2": np.log2,
    "math.exp2": np.exp2,
}

_HANDLERS: dict[str, Callable[[Walk, Op], None]] = {
    "arith.constant": Walk._constant,
    "tt.get_program_id": Walk._program_id,
    "tt.get_num_programs": Walk._num_programs,
    "tt.make_range": Walk._range,
    "tt.splat": Walk._splat,
    "tt.unsplat": lambda walk, op: walk._set(op, Value(walk._value(op.operands[0]).base)),
    "tt.expand_dims": Walk._expand,
    "tt.broadcast": Walk._broadcast,
    "tt.trans": Walk._trans,
    "tt.reshape": Walk._reshape,
    "tt.join": Walk._join,
    "tt.cat": Walk._join,
    "tt.split": Walk._split,
    "tt.addptr": Walk._addptr,
    "tt.advance": Walk._advance,
    "arith.cmpi": Walk._cmpi,
    "arith.select": Walk._select,
    "tt.load": Walk._load,
    "tt.descriptor_load": Walk._load,
    "tt.descriptor_gather": Walk._load,
    "tt.store": Walk._store,
    "tt.descriptor_store": Walk._store,
    "tt.descriptor_scatter": Walk._store,
    "tt.descriptor_reduce": Walk._atomic,
    "tt.atomic_rmw": Walk._atomic,
    "tt.atomic_cas": Walk._atomic,
    "tt.make_tensor_descriptor": Walk._make_block,
    "tt.make_tensor_ptr": Walk._make_block,
    "tt.dot": Walk._dot,
    "tt.dot_scaled": Walk._dot,
    **dict.fromkeys(_MEETING, Walk._meet),
    "tt.call": Walk._call,
    "scf.if": Walk._if,
    "scf.for": Walk._for,
    "scf.while": Walk._while,
    **dict.fromkeys(
        ("scf.yield", "scf.condition", "tt.return", "cf.br", "cf.cond_br"), lambda *_: None
    ),
}


def _samples(grid: tuple[int, int, int]) -> tuple[list[Any], list[Any]]:
    """Program ids, and iterations as shares of a loop, for each sample; the corners are among them."""
    j = np.arange(SAMPLES)
    cube = [np.modf(0.5 + j * _GOLDEN ** -(d + 1))[0] for d in range(6)]
    programs = grid[0] * grid[1] * grid[2]
    if programs <= SAMPLES:
        linear = j * programs // SAMPLES
        ids = [linear % grid[0], linear // grid[0] % grid[1], linear // (grid[0] * grid[1])]
    else:
        ids = [np.floor(cube[d] * grid[d]) for d in range(3)]
    for d in range(3):
        ids[d] = ids[d].astype(float)
        ids[d][0], ids[d][-1] = 0.0, grid[d] - 1.0
    random = cube[3:]
    for shares in random:
        shares[0], shares[-1] = 0.0, 1.0 - 1e-9
    return ids, random


def _first_failure(holds: Callable[[Any], Any]) -> Any:
    """The first iteration at which a condition fails, by sample; NaN where that is not known."""
    zero = np.zeros(SAMPLES)
    first = zero + holds(zero)
    high = zero + 1.0
    going = np.where(np.isnan(zero + holds(high)), NAN, zero + holds(high)) > 0.5
    while np.any(going) and high.max() < _MOST_TRIPS:
        high = np.where(going, high * 2, high)
        going = going & ((zero + holds(high)) > 0.5)
    low = np.floor(high / 2)
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        still = (zero + holds(middle)) > 0.5
        low, high = np.where(still, middle, low), np.where(still, high, middle)
    trips = np.where(first > 0.5, high, 0.0)
    return np.where(np.isnan(first) | (high >= _MOST_TRIPS), NAN, trips)


def _yielded(region: Sequence[Block]) -> list[int]:
    """The values that a region hands on."""
    ops = region[-1].ops
    return ops[-1].operands if ops and ops[-1].name == "scf.yield" else []


def _number(text: str) -> float:
    if text in ("true", "false"):
        return float(text == "true")
    try:
        return float(int(text, 16)) if text.startswith("0x") else float(text)
    except ValueError:
        return NAN


def _plain(value: Value) -> tuple[float, ...]:
    return tuple(0.0 if _zero(s) else NAN for s in value.strides)


def _zero(stride: Number) -> bool:
    return not isinstance(stride, np.ndarray) and stride == 0


def _uniform_strides(value: Value) -> bool:
    return all(_zero(s) for s in value.strides)


def _logic(name: str, a: Value, b: Value) -> Value:
    """And, or, exclusive or of conditions that are taken to be independent where axes differ."""
    rank = max(len(a.strides), len(b.strides))
    left, right = a.strides or (0.0,) * rank, b.strides or (0.0,) * rank
    strides = tuple(
        0.0 if _zero(x) and _zero(y) else NAN for x, y in zip(left, right, strict=False)
    )
    same = any(not _zero(x) and not _zero(y) for x, y in zip(left, right, strict=False))
    if name == "arith.andi":
        known = np.where(np.isnan(a.base), b.base, np.where(np.isnan(b.base), a.base, 0.0))
        both = np.minimum(a.base, b.base) if same else a.base * b.base
        base = np.where(np.isnan(both), known, both)
    elif name == "arith.ori":
        base = np.maximum(a.base, b.base)
    elif name == "arith.xori":
        base = np.asarray(np.abs(a.base - b.base))
    else:
        base = np.asarray(NAN)
    return Value(float(base) if np.ndim(base) == 0 else base, strides)


def _distinct(value: Value, shape: Sequence[int]) -> int:
    """Elements that may differ."""
    size = 1
    for n, stride in zip(shape, value.strides, strict=False):
        if not _zero(stride):
            small = float(np.max(np.abs(stride))) if not np.any(np.isnan(stride)) else 1.0
            size *= n if small >= 1 else max(1, math.ceil(n * small))
    if len(value.strides) < len(shape):
        for n in shape[len(value.strides) :]:
            size *= n
    return size


def _contiguous(address: Value, shape: Sequence[int]) -> tuple[int, int]:
    """The axis along which addresses are next to each other, and for how many elements."""
    for axis, (stride, n) in enumerate(zip(address.strides, shape, strict=False)):
        if n > 1 and np.all(np.asarray(stride) == 1):
            return axis, n
    if shape and all(n == 1 or _zero(s) for s, n in zip(address.strides, shape, strict=False)):
        return -1, 1
    return -1, 1


def _reshaped(
    before: Sequence[int], strides: Sequence[Number], after: Sequence[int]
) -> tuple[Number, ...]:
    """Strides after a reshape that only adds, drops or splits axes; NaN otherwise."""
    if not before or len(strides) != len(before):
        return (NAN,) * len(after)
    found: list[Number] = []
    axes = [(n, s) for n, s in zip(before, strides, strict=True) if n > 1]
    i, inner = len(axes) - 1, 1
    for n in reversed(after):
        if n == 1:
            found.append(0.0)
            continue
        if i < 0:
            return (NAN,) * len(after)
        size, stride = axes[i]
        if size % (inner * n):
            return (NAN,) * len(after)
        found.append(stride * inner if not _zero(stride) else 0.0)
        inner *= n
        if inner == size:
            i, inner = i - 1, 1
    return tuple(reversed(found))


def _attribute(op: Op, name: str, default: int) -> int:
    match = re.search(rf"\b{name} = (-?\d+)", op.text)
    return int(match[1]) if match else default
