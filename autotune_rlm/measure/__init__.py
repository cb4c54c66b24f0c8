"""Trustworthy numbers: timing, isolation, parallel compilation, correctness, devices, replay.

The public names stand in ``__init__.pyi`` and are imported when they are first used, so that
importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
