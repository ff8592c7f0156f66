import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.budget import Budget, cost_from_architecture
from pipeline.errors import InfeasibleBudget
from pipeline.trilevel_choice import Scores, best_choice
from pipeline.trilevel_space import Choice, TrilevelSpace

LR = (10, 10)


def tiny(variant: Any, positions: int = 2) -> TrilevelSpace:
    return TrilevelSpace(scale=2, variant=variant, trunk=8, widths=(4, 12), positions=positions, max_cells=2, max_ups=1)


def random_scores(space: TrilevelSpace, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    cells = len(space.cells)
    return Scores(
        rng.normal(size=len(space.deliverable)),
        rng.normal(size=(cells, space.positions, 4)),
        rng.normal(size=(cells, space.positions - 1, len(space.widths))),
    )


def regret(space: TrilevelSpace, scores: Scores, choice: Choice) -> float:
    """What `choice` loses against the best candidate of each of its variables."""

    def lost(values: Any, index: int) -> float:
        return float(max(values) - values[index])

    cells = [space.cells.index(step) for step in space.lineage(choice.node) if step in space.cells]
    total = lost(scores.nodes, space.deliverable.index(choice.node))
    for cell, ops, widths in zip(cells, choice.ops, choice.widths, strict=True):
        total += sum(lost(scores.ops[cell, at], op) for at, op in enumerate(ops))
        total += sum(lost(scores.widths[cell, at], width) for at, width in enumerate(widths))
    return total


def every_choice(space: TrilevelSpace) -> Iterator[Choice]:
    of_cell = [
        (ops, widths)
        for ops in itertools.product(range(4), repeat=space.positions)
        for widths in itertools.product(range(len(space.widths)), repeat=space.positions - 1)
    ]
    for node in space.deliverable:
        for cells in itertools.product(of_cell, repeat=space.nodes[node].count("c")):
            yield Choice(node, tuple(ops for ops, _ in cells), tuple(widths for _, widths in cells))


def share_of(space: TrilevelSpace, budget: Budget, choice: Choice) -> float:
    return budget.share(cost_from_architecture(space.architecture(choice), budget.lr_size))


BUDGETS = {
    "a": [Budget(LR, macs=400_000), Budget(LR, macs=700_000), Budget(LR, params=3_000)],
    "b": [Budget(LR, macs=200_000), Budget(LR, params=2_500), Budget(LR, macs=300_000, params=3_500)],
}


@pytest.mark.parametrize("variant", ["a", "b"])
def test_no_choice_in_the_window_is_better(variant: Any) -> None:
    space = tiny(variant)
    choices = list(every_choice(space))
    for budget in BUDGETS[variant]:
        shares = [share_of(space, budget, choice) for choice in choices]
        for seed in range(3):
            scores = random_scores(space, seed)
            found = best_choice(space, budget, scores)
            assert 0.9 <= share_of(space, budget, found) <= 1.0
            regrets = [regret(space, scores, choice) for choice in choices]
            in_window = min(lost for lost, share in zip(regrets, shares, strict=True) if 0.9 <= share <= 1.0)
            # Up to five parts are each rounded up by less than a thousandth.
            well_inside = min(lost for lost, share in zip(regrets, shares, strict=True) if 0.906 <= share <= 0.994)
            assert in_window - 1e-9 <= regret(space, scores, found) <= well_inside + 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("budget", [Budget((256, 256), macs=15_000_000_000), Budget((256, 256), params=500_000)])
@pytest.mark.parametrize("variant", ["a", "b"])
def test_the_published_space_uses_its_budget(variant: Any, budget: Budget, seed: int) -> None:
    space = TrilevelSpace(variant=variant)
    if variant == "a" and budget.macs:
        budget = Budget(budget.lr_size, macs=80_000_000_000)
    choice = best_choice(space, budget, random_scores(space, seed))
    assert 0.9 <= share_of(space, budget, choice) <= 1.0


def test_both_bounds_are_kept_where_they_pull_apart() -> None:
    space = tiny("a", positions=3)
    for macs, params in ((500_000, 3_000), (700_000, 2_500), (450_000, 5_000)):
        budget = Budget(LR, macs=macs, params=params)
        for seed in range(3):
            assert 0.85 <= share_of(space, budget, best_choice(space, budget, random_scores(space, seed))) <= 1.0


@pytest.mark.parametrize("budget", [Budget(LR), Budget(LR, macs=10**12)])
def test_without_need_every_variable_takes_its_best(budget: Budget) -> None:
    space = tiny("b")
    scores = random_scores(space, 5)
    choice = best_choice(space, Budget(LR), scores)
    assert regret(space, scores, choice) == 0.0
    assert share_of(space, budget, best_choice(space, budget, scores)) <= 1.0


def test_a_budget_beyond_the_space_is_used_as_far_as_it_goes() -> None:
    space = tiny("b")
    most = max(cost_from_architecture(space.architecture(choice), LR).macs for choice in every_choice(space))
    for seed in range(3):
        choice = best_choice(space, Budget(LR, macs=2 * most), random_scores(space, seed))
        assert cost_from_architecture(space.architecture(choice), LR).macs >= 0.89 * most


@pytest.mark.parametrize("variant", ["a", "b"])
@pytest.mark.parametrize("positions", [1, 3])
def test_the_cheapest_network_is_found_at_its_own_price(variant: Any, positions: int) -> None:
    space = tiny(variant, positions)
    cost = cost_from_architecture(space.cheapest(), LR)
    for budget in (Budget(LR, cost.macs, cost.params), Budget(LR, macs=cost.macs), Budget(LR, params=cost.params)):
        choice = best_choice(space, budget, random_scores(space, 0))
        assert space.architecture(choice) == space.cheapest()


@pytest.mark.parametrize(("macs", "params"), [(-1, None), (None, -1), (-1, 0)])
def test_a_budget_below_the_cheapest_network_is_refused_with_its_cost(macs: int | None, params: int | None) -> None:
    space = tiny("b")
    cost = cost_from_architecture(space.cheapest(), LR)
    budget = Budget(
        LR,
        None if macs is None else cost.macs + macs,
        None if params is None else cost.params + params,
    )
    with pytest.raises(InfeasibleBudget) as caught:
        best_choice(space, budget, random_scores(space, 0))
    assert (f"{cost.macs:,} MACs at 10x10, more than" in caught.value.message) == (macs == -1)
    assert (f"{cost.params:,} params, more than" in caught.value.message) == (params == -1)
    assert ("budget.macs" in caught.value.hint, "budget.params" in caught.value.hint) == (macs == -1, params == -1)
