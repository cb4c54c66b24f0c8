"""Thin adapters: Triton, ONNX and architecture search, Optuna."""
