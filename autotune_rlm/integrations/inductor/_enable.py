"""Puts our choices into TorchInductor and takes them out again, by its public hooks."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from autotune_rlm._checks import check_number, check_surrogate
from autotune_rlm.integrations.inductor._session import Session
from autotune_rlm.integrations.triton.resources import open_store
from autotune_rlm.store import Store
from autotune_rlm.types import Device, Surrogate

# On matrix products of shapes and of a device that the judged weights never saw, five measurements
# left a mean regret of 0.1 to 1.2 % (docs/surrogate.md, "Scores").
_BUDGET = 5
_active: tuple[Session, contextlib.ExitStack] | None = None


def enable(
    *,
    budget: int = _BUDGET,
    surrogate: Surrogate | str | None = None,
    store: Store | str | bool | None = None,
) -> Session:
    """Rank the choices of every later `torch.compile` in mode `max-autotune`.

    Library kernels are always kept, so that the result is not slower than they are. What Inductor
    fuses, whether it times in a subprocess, and what it caches stay as they are configured; graphs
    that were compiled with another setting of this integration are not taken from its cache.

    Args:
        budget: Triton templates of each operation that are compiled and timed.
        surrogate: A model, its name or folder; None for the bundled one, or what was fine-tuned of it on
            the store's measurements.
        store: A store, its file or URL; None for the user's own, False for none.

    Returns:
        The session, whose ``summary`` counts choices and measurements.

    Raises:
        ValueError: ``budget`` is below 1, or there is no such surrogate.
        RuntimeError: It is enabled already.
        ImportError: torch is older than 2.11 or built without Inductor's hooks.
    """
    global _active
    check_number("budget", budget, least=1, whole=True)
    if surrogate is not None:
        check_surrogate(surrogate)
    if _active is not None:
        raise RuntimeError("the integration is enabled already: call disable() first")
    try:
        from torch._inductor import config, select_algorithm
        from torch._inductor.choices import InductorChoices
        from torch._inductor.virtualized import V

        selector = select_algorithm.get_algorithm_selector_cache()
        hooks = selector.preprocessing_fns, selector.feedback_saver_fns
        was = config.inductor_choices_class
    except (ImportError, AttributeError) as error:
        raise ImportError(f"this needs torch 2.11 or newer: {error}") from error
    kept = open_store(None if store is True else store)
    model = functools.partial(_load, surrogate, kept)
    session = Session(budget=budget, surrogate=model, store=kept, device=_device)
    base = type(V.choices) if was is None else type(was())
    if not issubclass(base, InductorChoices):
        base = InductorChoices

    class RLMChoices(base):  # type: ignore[valid-type, misc]
        def _finalize_template_configs(self, made: Any, inputs: Any, *args: Any, **kw: Any) -> Any:
            listed = super()._finalize_template_configs(made, inputs, *args, **kw)
            return session.templates(listed, inputs)

        def uuid(self) -> str:
            inherited = getattr(super(), "uuid", lambda: "")()
            return f"{session.uuid}-{inherited}"

    with contextlib.ExitStack() as stack:
        hooks[0].append(session.choices)
        stack.callback(_remove, hooks[0], session.choices)
        hooks[1].append(session.timed)
        stack.callback(_remove, hooks[1], session.timed)
        stack.enter_context(config.patch(inductor_choices_class=RLMChoices))
        stack.enter_context(V.set_choices_handler(RLMChoices()))
        _active = session, stack.pop_all()
    return session


def disable() -> None:
    """Give TorchInductor its own choices back; nothing where it is not enabled."""
    global _active
    if _active is not None:
        _, stack = _active
        _active = None
        stack.close()


@contextlib.contextmanager
def enabled(**options: Any) -> Iterator[Session]:
    """``enable`` for a block; the same arguments."""
    session = enable(**options)
    try:
        yield session
    finally:
        disable()


def _remove(hooks: list[Any], hook: Any) -> None:
    if hook in hooks:
        hooks.remove(hook)


def _load(surrogate: Surrogate | str | None, store: Store | None) -> Surrogate:
    from autotune_rlm.surrogate import load_surrogate

    if surrogate is None:  # with the weights that were fine-tuned on what the store keeps
        return load_surrogate("nano" if store is None else None, store=store)
    return load_surrogate(surrogate) if isinstance(surrogate, str) else surrogate


def _device(device: Any) -> Device:
    from autotune_rlm.measure import current_device
    from autotune_rlm.measure.detect import cpu_device

    return cpu_device() if device.type == "cpu" else current_device()
