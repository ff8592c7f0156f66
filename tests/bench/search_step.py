"""What a step of the `edge` supernet costs, over a step of the network it delivers in its training form.

Both are timed in turn on the same batches, at several radii on the way to one network; the evidence is as it is after a
few steps of search. From the project's root: python -m tests.bench.search_step [folder ...]
"""

import json
import sys
import time
from functools import partial
from statistics import median

import torch
from torch.nn import functional

from pipeline.budget import Budget
from pipeline.data import PatchSampler, load_pairs
from pipeline.training import Recipe, supernet_from_recipe

RECIPE = Recipe("edge", 2, "rgb", "sparsestmax", steps=6000, batch=16, patch=48, rate=4e-3, seed=0)
BUDGET = Budget((360, 640), macs=16_000 * 360 * 640)
RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS, WARM_UP = 24, 4
LIMIT = 3.0  # two networks are trained, and every second step two are looked at; over a tenth of all steps


def main(folders: list[str]) -> bool:
    sampler = PatchSampler(load_pairs(folders, 2, minimum=48), 2, RECIPE.patch, RECIPE.batch, "rgb", 0)
    supernet = supernet_from_recipe(RECIPE, BUDGET)
    network = supernet.cut()
    for module in (supernet, network):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = supernet.parameter_groups()
    optimizers = [torch.optim.AdamW(group, fused=True) for group in (groups, network.parameters())]
    ratios = {}
    print(f"{'radius':>6}  {'candidates':>10}  {'supernet':>9}  {'network':>9}  ratio")
    for radius in RADII:
        supernet.set_radius(radius)
        seconds: tuple[list[float], list[float]] = ([], [])
        for step in range(STEPS):
            lr, hr = sampler.batch(step)
            lr = lr.contiguous(memory_format=torch.channels_last)
            objective = partial(functional.l1_loss, target=hr)
            for which, optimizer in enumerate(optimizers):
                begun = time.perf_counter()
                loss = supernet.loss(lr, hr, step, objective) if which == 0 else objective(network(lr))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                seconds[which].append(time.perf_counter() - begun)
        # A pair of supernet steps has one comparison; the mean of two neighbours is what a step costs.
        pairs = [sum(seconds[0][at : at + 2]) / 2 for at in range(WARM_UP, STEPS, 2)]
        mixed, alone = median(pairs), median(seconds[1][WARM_UP:])
        ratios[radius] = mixed / alone
        times = f"{1000 * mixed:6.1f} ms  {1000 * alone:6.1f} ms"
        print(f"{radius:6.2f}  {supernet.candidates():10d}  {times}  {ratios[radius]:5.2f}")
    figures = {
        "ratios": ratios,
        "limit": LIMIT,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "passed": max(ratios.values()) <= LIMIT,
    }
    print(json.dumps(figures))
    return max(ratios.values()) <= LIMIT


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:] or ["scikit-image:train"]) else 1)
