"""The share of a training step's time that drawing its patches takes.

A step trains 8 convolutions of 16 channels on 16 patches of 48x48 LR pixels, x2 RGB, in bf16 and channels_last. Larger
networks take longer over the same patches, so the share is an upper bound for them. From the project's root:
python -m tests.bench.data_loading [folder ...]
"""

import json
import sys
import time
from statistics import median

import torch
from torch import nn

from pipeline.data import PatchSampler, load_pairs

STEPS, WARM_UP = 300, 30
LIMIT = 0.10


def main(folders: list[str]) -> bool:
    started = time.perf_counter()
    pairs = load_pairs(folders, scale=2)
    seconds = time.perf_counter() - started
    print(f"{len(pairs)} images decoded and reduced in {seconds:.2f} s")
    sampler = PatchSampler(pairs, scale=2, patch=48, batch=16, color="rgb", seed=0)

    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    drawing, training = [], []
    for step in range(WARM_UP + STEPS):
        begun = time.perf_counter()
        lr, hr = sampler.batch(step)
        drawn = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            sr = network(lr)
        loss = (sr.float() - hr).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        drawing.append(drawn - begun)
        training.append(time.perf_counter() - drawn)

    batch_ms, step_ms = (1000 * median(times[WARM_UP:]) for times in (drawing, training))
    share = batch_ms / (batch_ms + step_ms)
    print(f"batch {batch_ms:.2f} ms, rest of the step {step_ms:.2f} ms, share {share:.1%}, limit {LIMIT:.0%}")
    figures = {
        "images": len(pairs),
        "load_seconds": seconds,
        "batch_ms": batch_ms,
        "step_ms": step_ms,
        "share": share,
        "limit": LIMIT,
        "steps": STEPS,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "passed": share < LIMIT,
    }
    print(json.dumps(figures))
    return share < LIMIT


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:] or ["scikit-image:train"]) else 1)
