#!/usr/bin/env python
"""Seconds that an audit takes to align two deep models, layer to layer: a CIFAR ResNet and its own translation.

    scripts/bench_align.py                 ResNet-332, about 1,000 layers on each side
    scripts/bench_align.py --depth 110 --rounds 5

The depth is 6n + 2. Wall time and time of the processor, the fastest of the rounds; the exit status is 1 where a layer
is left without its partner.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=332)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from translator import runtime

    runtime.prepare(quiet=True)
    import torch

    import translator
    from models.cifar_resnet import resnet_of_depth
    from translator.audit.align import align

    module, example = resnet_of_depth(options.depth).eval(), (torch.randn(2, 3, 32, 32),)
    model = translator.convert(module, example, proof=False).model
    seconds = []
    for _ in range(options.rounds):
        wall, processor = time.perf_counter(), time.process_time()
        found = align(module, model, example)
        seconds.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = min(seconds)
    alone = len(found.torch_only) + len(found.keras_only)
    print(f"ResNet-{options.depth}: {len(found.pairs):,} pairs, {alone} layers without a partner")
    print(f"aligned in {wall:.1f} s ({processor:.1f} s of the processor), the fastest of {options.rounds}")
    return int(alone > 0)


if __name__ == "__main__":
    raise SystemExit(main())
