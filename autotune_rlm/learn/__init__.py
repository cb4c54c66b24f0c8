"""Learning on numbers, the same for kernels, networks and studies. No torch, no triton.

* ``columns``: parameters as columns of numbers.
* ``gaussian_process``: regression on such columns.
* ``prior_mean``: other models' predictions of the same points, and a process that corrects them.
* ``transform``: values as about standard normal numbers, and back.
* ``acquisition``: what a point is worth, given a prediction.
"""
