"""Latency and peak memory of networks under ONNX Runtime and OpenVINO, in a worker process."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
