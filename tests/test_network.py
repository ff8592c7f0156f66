import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from pipeline.architecture import Architecture, Cell
from pipeline.errors import ConfigError, StaleArtifact
from pipeline.fold import plain_from_network
from pipeline.network import Network, load_network, nearest_matrix, network_from_architecture, save_network

EDGE = Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv5"), (6,)),), activation="prelu")

Build = Callable[..., Network]


def frame(architecture: Architecture, height: int = 10, width: int = 6) -> torch.Tensor:
    return torch.rand(2, architecture.channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", ["training", "plain"])
def test_file_holds_all_that_rebuilds_the_network(
    architecture: Architecture, random_network: Build, form: str, tmp_path: Path
) -> None:
    network = random_network(architecture)
    if form == "plain":
        network = plain_from_network(network)
    save_network(tmp_path / "weights.safetensors", network)
    loaded = load_network(tmp_path / "weights.safetensors")
    lr = frame(architecture)
    assert (loaded.architecture, loaded.form, loaded.training) == (architecture, form, False)
    assert torch.equal(loaded(lr), network(lr))


def test_file_says_what_it_is(random_network: Build, tmp_path: Path) -> None:
    save_network(tmp_path / "weights.safetensors", random_network(EDGE))
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["network"]) == {
        "schema": 1,
        "architecture": json.loads(EDGE.to_json()),
        "form": "training",
    }


def test_same_weights_make_the_same_bytes(random_network: Build, tmp_path: Path) -> None:
    for name in "abcd":
        save_network(tmp_path / name, random_network(EDGE))
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def damage(path: Path, how: str) -> None:
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["network"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    match how:
        case "missing":
            path.unlink()
            return
        case "half a file":
            path.write_bytes(path.read_bytes()[:200])
            return
        case "not safetensors":
            path.write_text("weights")
            return
        case "no metadata":
            header = None
        case "other schema":
            header["schema"] = 7
        case "no architecture":
            del header["architecture"]
        case "other architecture":
            header["architecture"]["width"] = 9
        case "tensor missing":
            del tensors["stem.identity"]
    save_file(tensors, path, None if header is None else {"network": json.dumps(header)})


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no weights at "),
        ("half a file", "is not a safetensors file"),
        ("not safetensors", "is not a safetensors file"),
        ("no metadata", "has schema None, this version reads 1"),
        ("other schema", "has schema 7, this version reads 1"),
        ("no architecture", "architecture has schema None"),
        ("other architecture", "does not fit its architecture"),
        ("tensor missing", "does not fit its architecture"),
    ],
)
def test_damaged_file_is_refused_with_a_way_out(random_network: Build, tmp_path: Path, how: str, message: str) -> None:
    path = tmp_path / "weights.safetensors"
    save_network(path, random_network(EDGE))
    damage(path, how)
    with pytest.raises(StaleArtifact, match=message) as caught:
        load_network(path)
    assert "search" in caught.value.hint


def test_every_skip_starts_as_nearest_upsampling(architecture: Architecture) -> None:
    network = network_from_architecture(architecture).eval()
    with torch.no_grad():
        for parameter in network.tail.parameters():
            parameter.zero_()
    lr = frame(architecture)
    enlarged = F.interpolate(lr, scale_factor=float(architecture.scale), mode="nearest")
    expected = torch.zeros_like(enlarged) if architecture.skip == "none" else enlarged
    with torch.no_grad():
        assert torch.equal(network(lr), expected)


@pytest.mark.parametrize(("unshuffle", "scale"), [(1, 2), (1, 3), (2, 2), (2, 3), (2, 4)])
def test_nearest_matrix_repeats_pixels(unshuffle: int, scale: int) -> None:
    architecture = Architecture("edge", scale, "rgb", 8, (), unshuffle=unshuffle, shuffle=scale * unshuffle)
    lr = frame(architecture, 4, 6)
    depth = F.pixel_unshuffle(lr, unshuffle)
    shuffled = F.pixel_shuffle(torch.einsum("oi,bihw->bohw", nearest_matrix(architecture), depth), scale * unshuffle)
    assert torch.equal(shuffled, F.interpolate(lr, scale_factor=float(scale), mode="nearest"))


def test_trilevel_cell_scales_its_chain(random_network: Build) -> None:
    architecture = Architecture("trilevel", 4, "rgb", 8, (Cell(("conv1",), ()),), skip="none", shuffle=4)
    cell = random_network(architecture).path[0]
    features = torch.randn(1, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = features + 0.2 * F.conv2d(features, cell.ops[0].conv.weight).relu()  # type: ignore[index,union-attr]
        assert torch.equal(cell(features), expected)


def test_a_full_disk_is_the_users_to_mend(
    random_network: Callable[..., Network], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    network = random_network(Architecture("edge", 2, "rgb", 8, ()))
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ConfigError, match="No space left"):
        save_network(tmp_path / "weights.safetensors", network)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("skip", ["conv3", "nearest", "none"])
def test_bfloat16_does_not_round_the_image(skip: str) -> None:
    network = network_from_architecture(Architecture("edge", 2, "rgb", 8, (), skip=skip))
    image = frame(network.architecture)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network(image)
    assert output.dtype == torch.float32
    if skip != "none":  # the tail starts at zero, so the network starts as its skip
        assert torch.equal(output, F.interpolate(image, scale_factor=2.0, mode="nearest"))
