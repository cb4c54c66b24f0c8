"""Facts of many launches of one kernel: each distinct IR is made once, and kept."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autotune_rlm.devices import parse_target
from autotune_rlm.types import Device, digest

from ._cache import IRCache
from ._frontend import DEFAULT_TARGET, first_ir
from ._grid import guess_grid
from ._kernel import facts_of_ir
from ._on_device import on_device
from ._signature import NotRead, Refused, Signature, signature_of, unwrapped
from ._types import KernelFacts

_REFUSED, _NOT_READ = "refused: ", "not read: "
_NO_GRID = "the launch grid does not follow from the arguments: one program is assumed"


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel with one configuration.

    Attributes:
        arguments: By name, the configuration's among them; see ``kernel_facts``.
        grid: Programs along three axes; None for a guess, see ``guess_grid``.
        num_warps: Of a program.
        num_stages: Of pipelined loops.
    """

    arguments: Mapping[str, Any]
    grid: tuple[int, int, int] | None
    num_warps: int = 4
    num_stages: int = 3


def facts_of(
    kernel: Any,
    arguments: Mapping[str, Any],
    *,
    grid: Sequence[int],
    device: Device,
    num_warps: int = 4,
    num_stages: int = 3,
) -> dict[str, float]:
    """The numbers of one launch on a device: what ``Candidate.facts`` holds.

    Raises:
        NotRead: As ``kernel_facts``.
    """
    x, y, z = (*grid, 1, 1)[:3]
    launch = Launch(arguments, (x, y, z), num_warps, num_stages)
    return Reader(kernel, target=target_of(device)).numbers(launch, device)


def target_of(device: Device) -> str:
    """The target that the front end is told of: the device's, where it is one of Triton's."""
    try:
        parse_target(device.target)
    except ValueError:
        return DEFAULT_TARGET
    return device.target


def read_or_reason(kernel: Any, signature: Signature, target: str) -> str:
    """The text of the IR, or why there is none, as ``Reader.keep`` takes it."""
    try:
        return first_ir(kernel, signature, target)
    except NotRead as error:
        return f"{_REFUSED if isinstance(error, Refused) else _NOT_READ}{error}"


class Reader:
    """Reads one kernel.

    Args:
        kernel: A ``@triton.jit`` function, decorated further or not.
        target: What the front end is told that it compiles for.
        cache: IRs of earlier processes; None for none.

    Raises:
        NotRead: There is no kernel, or Triton's interpreter runs it.
    """

    def __init__(
        self, kernel: Any, *, target: str = DEFAULT_TARGET, cache: IRCache | None = None
    ) -> None:
        self.kernel = unwrapped(kernel)
        self.target = target
        self._cache = cache
        self._texts: dict[str, str] = {}
        self._facts: dict[str, KernelFacts | NotRead] = {}

    @functools.cached_property
    def _identity(self) -> list[str]:
        import triton

        return [self.kernel.cache_key, self.target, triton.__version__]

    def key(self, signature: Signature) -> str:
        """What the IR is kept under."""
        return digest([self._identity, signature.binary_key()])

    def unread(self, launches: Iterable[Launch]) -> dict[str, Signature]:
        """Signatures by key whose IRs are neither here nor in the cache; what is bad is left out."""
        wanted: dict[str, Signature] = {}
        for launch in launches:
            signature = self._signature(launch)
            if signature is not None:
                wanted.setdefault(self.key(signature), signature)
        missing = [key for key in wanted if key not in self._texts]
        if self._cache is not None:
            self._texts.update(self._cache.get(missing))
        return {key: wanted[key] for key in missing if key not in self._texts}

    def keep(self, texts: Mapping[str, str]) -> None:
        """Take IRs (or reasons, see ``read``) by key, and write them to the cache."""
        self._texts.update(texts)
        if self._cache is not None:
            self._cache.put(texts)

    def read(self, signatures: Mapping[str, Signature]) -> dict[str, str]:
        """The IRs of signatures by key, made in this process; a refusal is kept as its reason."""
        return {key: read_or_reason(self.kernel, s, self.target) for key, s in signatures.items()}

    def _signature(self, launch: Launch) -> Signature | None:
        try:
            return signature_of(self.kernel, launch.arguments)
        except NotRead:
            return None

    def place(self, launch: Launch) -> str:
        """Identity of a launch's facts: those of two launches with one are equal.

        Raises:
            NotRead: An argument is missing or of an unknown kind.
        """
        return self._place(launch)[0]

    def facts(self, launch: Launch) -> KernelFacts:
        """What a launch does.

        Raises:
            NotRead: See ``kernel_facts``.
        """
        place, key, signature = self._place(launch)
        known = self._facts.get(place)
        if known is None:
            known = self._facts[place] = self._facts_of(key, signature, launch)
        if isinstance(known, NotRead):
            raise known
        return known

    def _place(self, launch: Launch) -> tuple[str, str, Signature]:
        signature = signature_of(self.kernel, launch.arguments)
        key = self.key(signature)
        known = [sorted(signature.scalars.items()), sorted(signature.shapes.items()), launch.grid]
        return digest([key, *map(str, known)]), key, signature

    def numbers(self, launch: Launch, device: Device) -> dict[str, float]:
        """What a launch does on a device, as ``on_device`` names it.

        Raises:
            NotRead: See ``kernel_facts``.
        """
        facts = self.facts(launch)
        return on_device(facts, device, num_warps=launch.num_warps, num_stages=launch.num_stages)

    def _facts_of(self, key: str, signature: Signature, launch: Launch) -> KernelFacts | NotRead:
        if key not in self._texts and self._cache is not None:
            self._texts.update(self._cache.get([key]))
        if key not in self._texts:
            self.keep(self.read({key: signature}))
        text = self._texts[key]
        if text.startswith(_REFUSED):
            return Refused(text.removeprefix(_REFUSED))
        if text.startswith(_NOT_READ):
            return NotRead(text.removeprefix(_NOT_READ))
        try:
            grid, known = (launch.grid, True) if launch.grid else guess_grid(text, signature)
            facts = facts_of_ir(text, signature, grid)
            return facts if known else replace(facts, assumed=(*facts.assumed, _NO_GRID))
        except NotRead as error:
            return error
        except Exception as error:  # an IR that nobody has met: better no facts than no launch
            return NotRead(f"its IR is not understood ({type(error).__name__}: {error})")
