"""The recorder: landscapes of whole kernel suites, and of any program's autotuned kernels."""
