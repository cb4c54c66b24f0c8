"""Registers, spills and shared memory of an attention, as expected and as compiled.

    python benchmarks/attention_facts.py --every 4

Compiles the kernel of ``programs/attention.py`` for sm_80 and sm_90, with heads of 64 and 128, causal and
not, over tiles, warps and stages. No attention was in the fit of the registers' weights; the weights of
chained products were chosen on the spills of such kernels.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from judge_eye import spec_of
from programs.attention import attention

from autotune_rlm import devices, ir
from autotune_rlm.measure.triton.compile import CompilePool

DEVICES = {"sm_80": "NVIDIA A100", "sm_90": "NVIDIA H100"}
N = 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="compile one of so many")
    args = parser.parse_args()
    spaces = (DEVICES, (64, 128), (0, 1), (64, 128), (32, 64, 128), (4, 8), (1, 2, 3, 4, 5))
    cases = list(itertools.product(*spaces))
    cases = [cases[i] for i in np.random.default_rng(0).permutation(len(cases))[:: args.every]]
    factors: dict[str, list[float]] = {"registers": [], "shared_bytes": []}
    spilling = []
    with CompilePool(1) as pool:
        for target, head, causal, m, n, warps, stages in cases:
            config = {"BLOCK_M": m, "BLOCK_N": n, "num_warps": warps, "num_stages": stages}
            arguments = {
                **dict.fromkeys(("q_ptr", "k_ptr", "v_ptr", "out_ptr"), "*fp16"),
                **{"scale": 0.1, "Z": 4, "H": 32, "N": N, "HEAD": head, "CAUSAL": bool(causal)},
                **{"BLOCK_M": m, "BLOCK_N": n},
            }
            program = {"kernel": attention.fn, "arguments": arguments}
            told = pool.compile(spec_of(program, config, target)).facts
            facts = ir.kernel_facts(attention, arguments, grid=(N // m, 128))
            device = devices.lookup(DEVICES[target])
            expected = ir.on_device(facts, device, num_warps=warps, num_stages=stages)
            if "registers" not in told:
                continue
            for name, found in factors.items():
                found.append(abs(np.log(expected[name] / told[name])))
            spilling.append((told["spills"] > 0, expected["excess_registers"] > 0))
            if any(spilling[-1]):
                words = (
                    f"{told['spills']:.0f} words spill, {expected['excess_registers']:.0f} expected"
                )
                print(f"{target}, head {head}, causal {causal}, {config}: {words}", flush=True)
    for name, found in factors.items():
        middle, tail = np.exp(np.quantile(found, (0.5, 0.9)))
        print(f"{name}: factor {middle:.2f}, 90th percentile {tail:.2f}, of {len(found)}")
    spills, said = np.array(spilling).T
    hit, vain = (spills & said).sum(), (said & ~spills).sum()
    print(f"{spills.sum()} spill, {hit} of them expected; {vain} were expected to in vain")


if __name__ == "__main__":
    main()
