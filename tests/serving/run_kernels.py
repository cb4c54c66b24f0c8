"""Runs a server's kernels in Triton's interpreter, which has to be on before Triton is imported."""

import json
import sys

from autotune_rlm.integrations.serving._installed import kernel_file
from autotune_rlm.integrations.serving._workload import bench
from autotune_rlm.measure.triton.correctness import disagreement


def main(server, given):
    results = []
    for kernel, problem in given["cases"]:
        try:
            path, function = kernel_file(server, kernel)
        except LookupError:
            continue
        make = bench(
            file=str(path), function=function, kernel=kernel, problem=problem, device="cpu"
        )
        for config in given["configs"]:
            job = make(config)
            job.prepare()
            job.call.run()
            results.append(([kernel, problem], disagreement(job.outputs(), make.expected())))
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
