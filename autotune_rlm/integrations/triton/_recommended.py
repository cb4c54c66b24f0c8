"""What a file recommends for a launch: one that was named, or the one that a package ships."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

from autotune_rlm.store.config_file import read_configs, shipped_with
from autotune_rlm.types import Candidate, Task

_log = logging.getLogger(__name__)


def recommended(
    configs_from: Any, source: str, task: Task, candidates: Sequence[Candidate], key: Sequence[str]
) -> list[Candidate]:
    """Those of the candidates that are recommended, best first; the log says for what they were found.

    Without ``configs_from`` it is the file that the package of the kernel's ``source`` file ships.
    """
    known, where = read_configs(configs_from), "configs_from"
    if known is None:
        shipped = shipped_with(source)
        if shipped is None:
            return []
        where, known = str(shipped[0]), shipped[1]
    nearest = known.nearest(task, key)
    if not nearest:
        return []
    here = {c.key: c for c in candidates}
    found = [Candidate(r.config).key for r in known.find(task, key)]
    chosen = [here[config] for config in found if config in here]
    if chosen:
        _say(task.kernel, task.device.name, where, nearest[0].describe(key))
    else:
        _log.info("%s has none of the configurations recommended for it", task.kernel)
    return chosen


@functools.lru_cache(maxsize=1024)
def _say(kernel: str, device: str, where: str, what: str) -> None:
    _log.info("%s on %s: configurations of %s, %s", kernel, device, where, what)
