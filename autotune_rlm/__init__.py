"""Autotuning with a Regression Language Model as the cheap cost model.

The public names stand in ``__init__.pyi``. They are imported on first use, so that
``import autotune_rlm`` costs milliseconds and imports neither torch nor triton.
"""

import lazy_loader

from autotune_rlm import _moved

_moved.install()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
