"""``check="default"``: what a configuration writes is compared with what the default writes.

Nobody says which arguments a kernel writes. So all tensors of the launch are compared; each
configuration finds them as they were before the search; and elements that the default overwrites,
whatever was there, hold NaN before a launch, so that what an earlier one wrote cannot pass for this
one's.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from autotune_rlm.measure.errors import one_line
from autotune_rlm.measure.statistics.timing import Call
from autotune_rlm.measure.triton.correctness import snapshot

_log = logging.getLogger(__name__)


class OutputCheck:
    """The tensors of a launch, those in descriptors too, before it and after ``default``, which is right.

    Takes the memory of all its tensors three times (before, expected, seen), and a byte for each
    element that is overwritten.
    """

    def __init__(self, named: Mapping[str, Any], default: Call) -> None:
        found = {name: getattr(value, "base", value) for name, value in named.items()}
        self._tensors = {name: value for name, value in found.items() if can_be_written(value)}
        self._before = snapshot(self._tensors)
        self._default = default
        self._overwritten: dict[str, Any] | None = None
        self._expected: dict[str, Any] | None = None

    def expected(self) -> dict[str, Any] | None:
        """What the default writes; None where it does not work."""
        return self._expected

    def outputs(self) -> dict[str, Any]:
        """All tensors; the default's are what others are compared with."""
        return dict(self._tensors)

    def restore(self) -> None:
        """Make the tensors what they were before the search."""
        for name, tensor in self._tensors.items():
            with _values_of(tensor) as values:
                values.copy_(self._before[name])

    def prepare(self, call: Call) -> None:
        """Make the tensors ready for the launch that is compared.

        Where the default does not work, this launch shows what is overwritten; raises what it raises.
        """
        if self._overwritten is None:
            try:
                self._overwritten = self._find_overwritten(self._default)
                self._expected = self._written_by(self._default)
            except Exception as error:
                _log.warning("the default configuration does not work: %s", one_line(str(error)))
                self._overwritten = self._find_overwritten(call)
        self.restore()
        for name, where in self._overwritten.items():
            with _values_of(self._tensors[name]) as values:
                values.masked_fill_(where, float("nan"))

    def _written_by(self, call: Call) -> dict[str, Any]:
        self.restore()
        seen: dict[str, Any] = {}

        def run() -> None:
            call.run()
            seen.update(snapshot(self._tensors))

        call.around(run)
        return seen

    def _find_overwritten(self, call: Call) -> dict[str, Any]:
        """Where a launch leaves numbers though the tensor was all NaN before it, by name."""
        found = {}
        for name, tensor in self._tensors.items():
            if not tensor.dtype.is_floating_point:
                continue  # NaN is harmless anywhere, a wrong index is not
            self.restore()
            with _values_of(tensor) as values:
                values.fill_(float("nan"))
            seen: list[Any] = []

            def run(tensor: Any = tensor, seen: list[Any] = seen) -> None:
                call.run()
                seen.append(~tensor.isnan())

            call.around(run)
            if seen[0].any():
                found[name] = seen[0]
        return found


@contextlib.contextmanager
def _values_of(tensor: Any) -> Iterator[Any]:
    """The values of any tensor, to be changed unseen by autograd: they come back in the end.

    A parameter, a tensor that a backward pass has saved and one of an inference mode are no exception.
    """
    import torch

    with torch.inference_mode():
        yield tensor.data


def can_be_written(value: Any) -> bool:
    """Whether a kernel may write it: a tensor with elements of which none share memory."""
    if not (hasattr(value, "data_ptr") and hasattr(value, "clone") and value.numel()):
        return False
    return all(t or n < 2 for t, n in zip(value.stride(), value.shape, strict=True))
