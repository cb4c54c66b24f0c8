"""Neural networks without their weights: canonical text, facts and architecture spaces.

Reads ONNX models (the ``onnx`` package is imported when one is read) and builds the networks of
published spaces. No torch is imported, except to export a module that a space of the user builds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
