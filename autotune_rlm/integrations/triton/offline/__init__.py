"""Kernels of a file or a package, for devices that are here or not: found, ranked, tuned."""
