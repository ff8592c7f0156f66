import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.config import Relaxation
from pipeline.simplex import RELAXATIONS, circumradius, order_penalty, relax, sparsemax, sparsestmax


def random_logits(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def radius_of(point: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(point - 1.0 / point.shape[-1], dim=-1)
    return distance


def dense_simplex(steps: int) -> Tensor:
    """All points of the simplex of three candidates whose coordinates are multiples of 1 / steps."""
    a, b = torch.meshgrid(torch.arange(steps + 1), torch.arange(steps + 1), indexing="ij")
    kept = a + b <= steps
    return torch.stack([a[kept], b[kept], (steps - a - b)[kept]], -1).double() / steps


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.7, 0.9, 0.99])
@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 3.0])
def test_no_point_of_a_dense_search_is_nearer(share: float, scale: float) -> None:
    radius = share * circumradius(3)
    grid = dense_simplex(200)
    allowed = grid[radius_of(grid) >= radius]
    for logits in random_logits(25, 3, scale=scale):
        point = sparsestmax(logits, radius)
        assert radius_of(point) >= radius - 1e-12
        nearest = allowed[(allowed - logits).norm(dim=-1).argmin()]
        assert (point - logits).norm() <= (nearest - logits).norm() + 1e-12
        # No point of the set is further from the grid than its mesh.
        assert (nearest - logits).norm() - (point - logits).norm() < 0.01


@pytest.mark.parametrize(
    ("logits", "radius", "expected"),
    [
        ([0.6, 0.4, -0.5], 0.3, [0.6, 0.4, 0.0]),  # far enough from the uniform point as it is
        ([0.6, 0.4, -0.5], 0.0, [0.6, 0.4, 0.0]),
        ([0.6, 0.4, -0.5], 1.0, [1.0, 0.0, 0.0]),
        ([0.1, 0.1, 0.1], 0.0, [1 / 3, 1 / 3, 1 / 3]),
        ([2.0, 0.0, 0.0], 0.4, [1.0, 0.0, 0.0]),
        # Pushed along (2, -1, -1) / sqrt(6) from the centre.
        ([0.4, 0.3, 0.3], 0.3, [1 / 3 + 0.6 / 6**0.5, 1 / 3 - 0.3 / 6**0.5, 1 / 3 - 0.3 / 6**0.5]),
        # Within the face of the first two: 0.5 +- sqrt((0.5 - 1/6) / 2) * 1/sqrt(2) for a radius of sqrt(1/2).
        ([0.55, 0.45, -3.0], 0.5**0.5, [0.5 + (1 / 6) ** 0.5, 0.5 - (1 / 6) ** 0.5, 0.0]),
        ([7.0], 0.0, [1.0]),
    ],
)
def test_worked_examples(logits: list[float], radius: float, expected: list[float]) -> None:
    point = sparsestmax(torch.tensor(logits, dtype=torch.float64), radius)
    torch.testing.assert_close(point, torch.tensor(expected, dtype=torch.float64))


@given(
    logits=st.lists(st.integers(-2000, 2000).map(lambda hundredths: hundredths / 100), min_size=1, max_size=12),
    share=st.floats(0, 1.2),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_always_a_point_of_the_set_that_keeps_the_order(logits: list[float], share: float, dtype: torch.dtype) -> None:
    values = torch.tensor(logits, dtype=dtype)
    radius = share * circumradius(len(logits))
    point = sparsestmax(values, radius)
    tolerance = 1e-5 if dtype is torch.float32 else 1e-10
    assert point.dtype is dtype
    assert point.min() >= 0
    assert abs(float(point.sum()) - 1) < tolerance
    assert radius_of(point) >= min(radius, circumradius(len(logits))) - tolerance
    order = values.argsort(stable=True)
    ascending = point[order]
    assert ((ascending.diff() >= -tolerance) | (values[order].diff() == 0)).all()


@pytest.mark.parametrize("k", [1, 2, 5, 55])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95, 1.0])
def test_gradient_equals_finite_differences(k: int, share: float) -> None:
    logits = random_logits(3, k, seed=k, scale=0.3).requires_grad_()
    weights = random_logits(3, k, seed=k + 1)
    radius = share * circumradius(k)

    def loss(values: Tensor) -> Tensor:
        return (weights * sparsestmax(values, radius)).sum()

    assert torch.autograd.gradcheck(loss, (logits,))
    assert torch.autograd.gradcheck(lambda values: (weights * sparsemax(values)).sum(), (logits,))


def test_gradient_follows_the_formula() -> None:
    logits = torch.tensor([0.5, 0.3, 0.1, -2.0], dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    radius = 0.45
    (upstream * sparsestmax(logits, radius)).sum().backward()  # type: ignore[no-untyped-call]

    support = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    point = sparsemax(logits.detach())
    offset = point - support / 3
    goal = math.sqrt(radius**2 - (1 / 3 - 1 / 4))
    normal = offset / offset.norm()
    pushed = goal / offset.norm() * (upstream - normal * (normal @ upstream)) * support
    assert offset.norm() < goal
    torch.testing.assert_close(logits.grad, (pushed - pushed.sum() / 3) * support)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 55])
def test_one_hot_at_the_circumradius_and_beyond(k: int) -> None:
    logits = random_logits(20, k, scale=0.01).float()
    for radius in (circumradius(k), 1.0):
        point = sparsestmax(logits, radius)
        assert torch.equal(point, torch.nn.functional.one_hot(logits.argmax(-1), k).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("logits", "winner"),
    [([0.0] * 5, 0), ([0.1, 0.5, 0.5, 0.5, 0.2], 1), ([-1.0, -1.0, 0.3, 0.7, 0.7], 3), ([1 / 3] * 3, 0)],
)
def test_of_equal_candidates_the_first_wins(logits: list[float], winner: int, dtype: torch.dtype) -> None:
    values = torch.tensor(logits, dtype=dtype, requires_grad=True)
    for share in (0.999, 1.0):
        point = sparsestmax(values, share * circumradius(len(logits)))
        assert point.argmax() == winner
        assert (point > 0.9).sum() == 1
        (gradient,) = torch.autograd.grad(point.square().sum(), values)
        assert gradient.isfinite().all()


def test_a_tie_is_pushed_at_the_first_corner() -> None:
    values = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    radius = 0.3
    point = sparsestmax(values, radius)
    corner = torch.tensor([0.75, -0.25, -0.25, -0.25], dtype=torch.float64)
    torch.testing.assert_close(point, 0.25 + radius * corner / corner.norm())
    (gradient,) = torch.autograd.grad(point[0], values)
    assert torch.equal(gradient, torch.zeros_like(values))


def test_batches_equal_row_by_row() -> None:
    logits = torch.cat([random_logits(50, 7, scale=scale) for scale in (0.0, 0.05, 0.5, 3.0)])
    weights = random_logits(7, seed=3)
    for radius in (0.0, 0.2, 0.5, 0.8, 0.92):
        whole = logits.clone().requires_grad_()
        rows = logits.clone().requires_grad_()
        batched = sparsestmax(whole.reshape(4, 50, 7), radius).reshape(-1, 7)
        single = torch.stack([sparsestmax(row, radius) for row in rows])
        assert torch.equal(batched, single)
        (batched_gradient,) = torch.autograd.grad((batched * weights).sum(), whole)
        (single_gradient,) = torch.autograd.grad((single * weights).sum(), rows)
        torch.testing.assert_close(batched_gradient, single_gradient)


def test_radius_zero_is_sparsemax() -> None:
    logits = random_logits(100, 6)
    assert torch.equal(sparsestmax(logits, 0.0), sparsemax(logits))


def test_sparsemax_is_known_at_its_ends() -> None:
    torch.testing.assert_close(sparsemax(torch.tensor([0.2, 0.2])), torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(sparsemax(torch.tensor([3.0, 1.0, 0.0])), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(sparsemax(torch.tensor([0.5, 0.2, 0.0])), torch.tensor([0.6, 0.3, 0.1]))
    # Interior points of the simplex are their own projection.
    inside = random_logits(10, 5).softmax(-1)
    torch.testing.assert_close(sparsemax(inside), inside)


def test_support_shrinks_as_the_radius_grows() -> None:
    logits = random_logits(55, scale=0.002)
    sizes = [int((sparsestmax(logits, step / 20 * circumradius(55)) > 0).sum()) for step in range(21)]
    assert sizes[0] == 55
    assert sizes[-1] == 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits = random_logits(4, 9).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        for name in RELAXATIONS:
            point = relax(name, logits, 0.5, generator=torch.Generator().manual_seed(0))
            assert point.dtype is torch.float32
        assert torch.equal(sparsestmax(logits, 0.5), sparsestmax(logits.float(), 0.5))


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="distance"):
        sparsestmax(torch.zeros(3), -0.1)


@pytest.mark.parametrize("name", RELAXATIONS)
def test_every_relaxation_is_differentiable_and_positive(name: Relaxation) -> None:
    logits = random_logits(3, 5, scale=0.3).requires_grad_()
    weights = relax(name, logits, 0.3, temperature=0.7, generator=torch.Generator().manual_seed(1))
    assert weights.shape == logits.shape
    assert weights.min() >= 0
    if name != "sigmoid":
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, dtype=torch.float64))
    (gradient,) = torch.autograd.grad((weights * random_logits(5, seed=9)).sum(), logits)
    assert gradient.abs().sum() > 0


def test_relaxations_to_compare_with() -> None:
    logits = random_logits(2, 4)
    assert torch.equal(relax("softmax", logits, 0.9), logits.softmax(-1))
    assert torch.equal(relax("sigmoid", logits, 0.9), logits.sigmoid())
    assert torch.equal(relax("sparsemax", logits, 0.9), sparsemax(logits))
    assert torch.equal(relax("sorted", logits, 0.6), relax("sparsestmax", logits, 0.6))
    with pytest.raises(ValueError, match="softmax, gumbel"):
        relax("hardmax", logits, 0.0)  # type: ignore[arg-type]


def test_gumbel_draws_follow_the_seed_and_the_softmax() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0])

    def draws(seed: int, temperature: float) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return relax("gumbel", logits.expand(20_000, 3), 0.0, temperature=temperature, generator=generator)

    assert torch.equal(draws(3, 0.5), draws(3, 0.5))
    assert not torch.equal(draws(3, 0.5), draws(4, 0.5))
    # The largest of logits plus Gumbel noise is distributed as their softmax (Gumbel-max).
    winners = draws(0, 0.1).argmax(-1).bincount(minlength=3) / 20_000
    torch.testing.assert_close(winners, logits.softmax(-1), atol=0.015, rtol=0)
    assert draws(0, 0.01).amax(-1).mean() > 0.98


def test_order_penalty_adds_the_increments_along_each_path() -> None:
    logits = torch.tensor([0.5, 1.5, -1.0, 2.0], requires_grad=True)
    paths = [(0, 1, 2), (0, 3), (1,)]
    penalty = order_penalty(logits, paths)
    assert penalty.item() == pytest.approx((1.5 - 0.5) + (-1.0 - 1.5) + (2.0 - 0.5))
    (gradient,) = torch.autograd.grad(penalty, logits)
    assert gradient.tolist() == [-2.0, 0.0, 1.0, 1.0]
