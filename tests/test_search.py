"""The search stage on real photographs, in a few steps."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.architecture import Architecture, Cell, architecture_from_dict
from pipeline.budget import Budget, Cost, Device, cost_from_architecture
from pipeline.config import TrainDevice, TrainPrecision
from pipeline.data import Pair, load_pairs
from pipeline.errors import BudgetMissed, ConfigError, DataError, InfeasibleBudget
from pipeline.manifest import check_outputs
from pipeline.metrics import CAP_DB
from pipeline.network import load_network, network_from_architecture, save_network
from pipeline.search import search
from pipeline.supernet import RATE, EdgeSupernet
from pipeline.training import Progress, Recipe, Training, hold_out, space_from_recipe

RECIPE = Recipe("edge", 2, "rgb", "sparsestmax", steps=40, batch=2, patch=12, rate=2e-3, seed=1, precision="fp32")
BUDGET = Budget((32, 32), macs=5_000 * 1024)
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    whole = load_pairs(["scikit-image:train"], 2)
    return [replace(pair, lr=pair.lr[:80, :80], hr=pair.hr[:160, :160]) for pair in whole]


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, relaxation="softmax", color="y", precision="bf16"),
        replace(RECIPE, relaxation="sorted", scale=3),
    ],
    ids=lambda recipe: f"{recipe.relaxation}-x{recipe.scale}-{recipe.color}",
)
def test_a_search_leaves_a_network_within_its_budget(tmp_path: Path, recipe: Recipe) -> None:
    pairs = load_pairs(["scikit-image:test"], recipe.scale)[:2]
    seen: list[Progress] = []
    report = search(tmp_path, recipe, BUDGET, pairs, inputs={"images": "x"}, on_progress=seen.append)
    network = load_network(tmp_path / "search" / "weights.safetensors")
    recorded = json.loads((tmp_path / "search" / "architecture.json").read_text())
    cost = cost_from_architecture(network.architecture, BUDGET.lr_size)
    assert architecture_from_dict(recorded) == network.architecture
    assert report["cost"] == asdict(cost)
    assert 0.9 <= BUDGET.share(cost) <= 1.0
    assert [progress.step for progress in seen] == list(range(1, recipe.steps + 1))
    assert all(progress.share <= 1.0 for progress in seen)
    assert {progress.phase for progress in seen} == {"search", "train"}
    assert 0 < (seen[0].seconds or 0) < (seen[-1].seconds or 0)
    assert report["cut_step"] == math.ceil(EdgeSupernet.choosing * recipe.steps)
    assert report["precision"] == recipe.precision
    check_outputs(tmp_path / "search")
    assert not (tmp_path / "search" / "checkpoint.safetensors").exists()


def test_at_the_cut_the_supernet_is_the_delivered_network(tmp_path: Path, pairs: list[Pair]) -> None:
    report = search(tmp_path, RECIPE, BUDGET, pairs, inputs={})
    assert report["cut_gap_db"] <= 0.01


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not(
    tmp_path: Path, pairs: list[Pair], precision: TrainPrecision, device: TrainDevice
) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        recipe = replace(RECIPE, seed=seed, precision=precision, device=device)
        report = search(tmp_path / name, recipe, BUDGET, pairs, inputs={})
        assert report["train_device"] == device
        weights.append(load_file(tmp_path / name / "search" / "weights.safetensors"))
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert any(
        name not in weights[2] or tensor.shape != weights[2][name].shape or not torch.equal(tensor, weights[2][name])
        for name, tensor in weights[0].items()
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("stop", [15, 25], ids=["while searching", "while training"])
def test_an_interrupted_search_goes_on_to_the_same_weights(
    tmp_path: Path, pairs: list[Pair], stop: int, device: TrainDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured anew, the other precision may be the faster one: it stays with the one it began with."""
    monkeypatch.setattr("pipeline.search.CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(EdgeSupernet, "choosing", 0.5)  # the cut is at step 20
    recipe = replace(RECIPE, precision="auto", device=device)

    def interrupt(progress: Progress) -> None:
        if progress.step == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.training.bf16_pays", lambda _: True)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "cut", recipe, BUDGET, pairs, inputs={}, on_progress=interrupt)
    monkeypatch.setattr("pipeline.training.bf16_pays", lambda _: False)
    steps: list[int] = []
    report = search(tmp_path / "cut", recipe, BUDGET, pairs, inputs={}, on_progress=lambda p: steps.append(p.step))
    assert report["precision"] == "bf16"
    search(tmp_path / "whole", replace(recipe, precision="bf16"), BUDGET, pairs, inputs={})
    assert steps[0] == stop // 10 * 10 + 1
    one, two = (load_file(tmp_path / name / "search" / "weights.safetensors") for name in ("cut", "whole"))
    assert one.keys() == two.keys()
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("device", DEVICES)
def test_the_published_space_ends_as_one_network_too(tmp_path: Path, device: TrainDevice) -> None:
    budget = Budget((256, 256), macs=15_400_000_000)
    small = replace(RECIPE, steps=3, batch=1, patch=8)
    recipe = replace(small, space="trilevel", scale=4, relaxation="sorted", device=device)
    report = search(tmp_path, recipe, budget, load_pairs(["scikit-image:test"], 4)[:1], inputs={})
    network = load_network(tmp_path / "search" / "weights.safetensors")
    assert network.architecture.space == "trilevel"
    assert report["cut_gap_db"] <= 0.01
    assert 0.9 <= report["share"] <= 1.0


def test_an_impossible_variant_says_which_one_to_take() -> None:
    recipe = replace(RECIPE, space="trilevel", scale=3, variant="a")
    with pytest.raises(ConfigError) as error:
        space_from_recipe(recipe, BUDGET)
    assert "search.variant = b" in error.value.hint


def test_a_checkpoint_of_another_recipe_is_not_used(
    tmp_path: Path, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.search.CHECKPOINT_SECONDS", -1.0)

    def interrupt(progress: Progress) -> None:
        if progress.step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, RECIPE, BUDGET, pairs, inputs={}, on_progress=interrupt)
    steps: list[int] = []
    told: list[str] = []
    changed = replace(RECIPE, rate=1e-3)
    search(tmp_path, changed, BUDGET, pairs, inputs={}, tell=told.append, on_progress=lambda p: steps.append(p.step))
    assert steps[0] == 1
    assert told == ["the unfinished search there was of other settings or images, and is replaced"]


def test_a_checkpoint_of_another_device_is_not_used(pairs: list[Pair], tmp_path: Path) -> None:
    training = Training(RECIPE, BUDGET, pairs)
    training.save(tmp_path / "checkpoint.safetensors", {})
    same, other = Training(RECIPE, BUDGET, pairs), Training(RECIPE, BUDGET, pairs)
    assert same.resume(tmp_path / "checkpoint.safetensors", {}) == f"goes on from step 0 of {RECIPE.steps}"
    other.train_device = "cuda"
    with pytest.raises(ConfigError, match="was trained on cpu up to step 0, and goes on there alone") as caught:
        other.resume(tmp_path / "checkpoint.safetensors", {})
    assert "set train.device = cpu" in caught.value.hint
    assert (tmp_path / "checkpoint.safetensors").exists()


def test_an_incumbent_for_timed_finalists_is_not_gone_on_with_elsewhere(pairs: list[Pair], tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    device = Device(lambda _: 1.0, lambda _: 1.0)
    budget = replace(BUDGET, latency_ms=2.0, profile="here")
    Training(RECIPE, budget, pairs, device).save(path, {})
    assert "goes on" in str(Training(RECIPE, budget, pairs, device).resume(path, {}))
    told = Training(RECIPE, budget, pairs, replace(device, measure_ms=None)).resume(path, {})
    assert told == "this machine has become, or is no longer, the device of the profile: the search starts again"


def test_a_flat_image_that_is_watched_does_no_harm(tmp_path: Path, pairs: list[Pair]) -> None:
    flat = replace(pairs[0], lr=np.zeros_like(pairs[0].lr), hr=np.zeros_like(pairs[0].hr))
    report = search(tmp_path, RECIPE, BUDGET, [flat, *pairs], inputs={})
    assert report["psnr_y"] <= CAP_DB
    assert report["cut_gap_db"] < CAP_DB


def test_a_gpu_of_too_little_memory_says_what_to_lower(
    pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(EdgeSupernet, "loss", full)
    with pytest.raises(ConfigError, match="does not fit into the memory of the GPU") as error:
        search(tmp_path, RECIPE, BUDGET, pairs, inputs={})
    assert "train.batch" in error.value.hint


def test_an_infeasible_budget_ends_before_anything_is_written(tmp_path: Path, pairs: list[Pair]) -> None:
    with pytest.raises(InfeasibleBudget):
        search(tmp_path / "run", RECIPE, Budget((32, 32), macs=1000), pairs, inputs={})
    assert not (tmp_path / "run").exists()


def test_a_patch_that_cannot_be_unshuffled_is_refused(tmp_path: Path, pairs: list[Pair]) -> None:
    with pytest.raises(ConfigError, match="no multiple of 2"):
        search(tmp_path, replace(RECIPE, unshuffle=2, patch=13), BUDGET, pairs, inputs={})


def test_a_search_that_diverges_says_so(tmp_path: Path, pairs: list[Pair]) -> None:
    with pytest.raises(ConfigError, match="training diverged") as error:
        search(tmp_path, replace(RECIPE, rate=1e30), BUDGET, pairs, inputs={})
    assert "train.rate" in error.value.hint
    assert not (tmp_path / "search" / "weights.safetensors").exists()


def test_images_smaller_than_a_patch_are_refused(tmp_path: Path, pairs: list[Pair]) -> None:
    with pytest.raises(DataError, match="patch"):
        search(tmp_path / "run", replace(RECIPE, patch=200), BUDGET, pairs, inputs={})


def _teacher(scale: int = 2) -> Architecture:
    return Architecture("edge", scale, "rgb", 8, (Cell(("conv3",), ()),), shuffle=scale)


def test_a_teacher_changes_what_is_learnt(tmp_path: Path, pairs: list[Pair]) -> None:
    path = tmp_path / "teacher.safetensors"
    torch.manual_seed(0)
    save_network(path, network_from_architecture(_teacher()))
    taught = replace(RECIPE, teacher=str(path), teacher_weight=0.9)
    search(tmp_path / "taught", taught, BUDGET, pairs, inputs={})
    search(tmp_path / "alone", RECIPE, BUDGET, pairs, inputs={})
    one, two = (load_file(tmp_path / name / "search" / "weights.safetensors") for name in ("taught", "alone"))
    assert not torch.equal(one["tail.bias"], two["tail.bias"])


def test_a_teacher_of_another_scale_is_refused(tmp_path: Path, pairs: list[Pair]) -> None:
    path = tmp_path / "teacher.safetensors"
    save_network(path, network_from_architecture(_teacher(scale=3)))
    with pytest.raises(ConfigError, match="x3"):
        search(tmp_path / "run", replace(RECIPE, teacher=str(path)), BUDGET, pairs, inputs={})


def test_the_images_to_watch_are_not_trained_on(pairs: list[Pair]) -> None:
    many = [replace(pairs[0], name=str(index)) for index in range(60)]
    trained, watched = hold_out(many, 8)
    assert len(watched) == 3
    assert not {pair.name for pair in trained} & {pair.name for pair in watched}
    assert hold_out(many[:5], 8) == (many[:5], many[:1])
    tiny = replace(many[0], lr=many[0].lr[:7], hr=many[0].hr[:14])
    assert hold_out([tiny, *many[:5]], 8) == ([tiny, *many[:5]], many[:1])


def test_costs_are_of_the_delivered_network(tmp_path: Path, pairs: list[Pair]) -> None:
    seen: list[Progress] = []
    report = search(tmp_path, RECIPE, BUDGET, pairs, inputs={}, on_progress=seen.append)
    last = seen[-1]
    assert Cost(last.macs, last.params) == Cost(**report["cost"])


def milliseconds(architecture: Architecture) -> float:
    return 1.0 + cost_from_architecture(architecture, (360, 640)).macs / 1e9


@pytest.mark.parametrize(
    ("measure_ms", "finalists"),
    [(None, range(1)), (milliseconds, range(1, 3)), (lambda network: 1.3 * milliseconds(network), range(2, 9))],
    ids=["another machine", "as predicted", "slower than predicted"],
)
def test_a_latency_budget_is_kept_on_the_device(
    tmp_path: Path, pairs: list[Pair], measure_ms: Callable[[Architecture], float] | None, finalists: range
) -> None:
    budget = Budget((360, 640), latency_ms=5.0, profile="board")
    device = Device(milliseconds, measure_ms)
    seen: list[Progress] = []
    report = search(tmp_path, RECIPE, budget, pairs, inputs={}, device=device, on_progress=seen.append)
    network = load_network(tmp_path / "search" / "weights.safetensors").architecture
    assert len(report["finalists"]) in finalists
    assert report["cost"]["latency_ms"] == (measure_ms or milliseconds)(network) == seen[-1].latency_ms
    if measure_ms is not None and len(report["finalists"]) == 1:  # it began with the network that it ends with
        assert report["cut_gap_db"] <= 0.01
    assert 0.85 <= report["share"] <= 1.0
    assert report["budget"]["profile"] == "board"


def test_a_device_slower_than_every_finalist_misses_the_budget(tmp_path: Path, pairs: list[Pair]) -> None:
    device = Device(milliseconds, lambda network: 10 * milliseconds(network))
    with pytest.raises(BudgetMissed, match="finalists takes"):
        search(tmp_path, RECIPE, Budget((360, 640), latency_ms=5.0, profile="board"), pairs, inputs={}, device=device)
    assert not (tmp_path / "search" / "report.json").exists()


def test_wide_networks_train_at_a_lower_rate(tmp_path: Path, pairs: list[Pair]) -> None:
    """Before the cut, after it, and when they go on."""
    budget = Budget((32, 32), macs=64_000 * 1024)
    recipe = replace(RECIPE, steps=10, batch=1)
    training = Training(recipe, budget, pairs)
    assert [group["factor"] for group in training.optimizer.param_groups] == [0.75 * RATE, 0.75]
    while training.phase == "search":
        training.advance()
    assert training.network is not None
    assert training.network.architecture.width == 20
    assert [group["factor"] for group in training.optimizer.param_groups] == [0.75]
    training.save(tmp_path / "checkpoint.safetensors", {})
    resumed = Training(recipe, budget, pairs)
    resumed.resume(tmp_path / "checkpoint.safetensors", {})
    assert [group["factor"] for group in resumed.optimizer.param_groups] == [0.75]


def test_the_trilevel_space_has_no_latency() -> None:
    recipe = replace(RECIPE, space="trilevel", scale=4)
    with pytest.raises(ConfigError, match="no model of latency"):
        space_from_recipe(recipe, Budget((360, 640), latency_ms=5.0, profile="board"), Device(milliseconds))
