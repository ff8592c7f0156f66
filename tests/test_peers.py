from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy.openvino_runner import OpenVinoRunner
from deploy.runners import OnnxRuntimeRunner
from tests.bench.peer_export import cost_from_peer, margin_from_plain, onnx_from_peer
from tests.bench.peers import PEERS, Ecbsr, EdgeBlock, LinearBlock, Peer, Sesr, peer_from_name, quicksrnet

LR_SIZE = (360, 640)
MODELS = ("peer.onnx", "untrained.onnx")
PIXELS = LR_SIZE[0] * LR_SIZE[1]
ODD = (5, 7)


def random_peer(name: str, scale: int, dtype: torch.dtype = torch.float64) -> Peer:
    """A peer that is far from how it starts: biases, slopes and the last layer count."""
    peer = peer_from_name(name, scale).to(dtype)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return peer


def frame(peer: Peer, size: tuple[int, int] = ODD, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(2, peer.channels, *size, dtype=dtype)


def weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.dim() == 4)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", PEERS)
def test_plain_form_computes_the_same_at_every_size(name: str, scale: int) -> None:
    peer = random_peer(name, scale)
    plain = peer.plain()
    kinds = {type(module) for module in plain.modules()}
    assert not kinds & {LinearBlock, EdgeBlock}
    for size in (ODD, (1, 1), (6, 4)):
        lr = frame(peer, size)
        sr = peer(lr)
        assert sr.shape == (2, peer.channels, scale * size[0], scale * size[1])
        torch.testing.assert_close(plain(lr), sr, rtol=0, atol=1e-12)


def test_plain_form_is_a_copy() -> None:
    peer = random_peer("FSRCNN", 2)
    before = {name: tensor.clone() for name, tensor in peer.state_dict().items()}
    with torch.no_grad():
        for parameter in peer.plain().parameters():
            parameter.zero_()
    for name, tensor in peer.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(("inputs", "outputs", "size"), [(1, 4, 5), (4, 4, 3), (4, 2, 5)])
def test_a_linear_block_is_its_expansion(inputs: int, outputs: int, size: int) -> None:
    block = LinearBlock(inputs, outputs, size, expanded=9).double()
    features = torch.randn(2, inputs, *ODD, dtype=torch.float64)
    wide = F.conv2d(features, block.expand, padding="same")
    expected = F.conv2d(wide, block.project[:, :, None, None])
    if inputs == outputs:
        expected = expected + features
    torch.testing.assert_close(block(features), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 4), (4, 4), (4, 9)])
def test_an_edge_block_is_the_sum_of_its_branches(inputs: int, outputs: int) -> None:
    block = EdgeBlock(inputs, outputs).double()
    with torch.no_grad():
        block.scales.normal_()
        block.biases.normal_()
    features = torch.randn(2, inputs, *ODD, dtype=torch.float64)
    padded = F.pad(features, [1] * 4)  # before a 1x1 with bias: the border of its output is its bias
    expected = F.conv2d(padded, block.conv, block.conv_bias)
    expected = expected + F.conv2d(F.conv2d(padded, block.expand, block.expand_bias), block.squeeze, block.squeeze_bias)
    across = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]], dtype=torch.float64)
    around = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)
    for which, edge in enumerate([across, across.T, around]):
        mixed = F.conv2d(padded, block.mix[which], torch.randn(outputs, dtype=torch.float64))  # any bias cancels
        kernels = block.scales[which][:, None, None, None] * edge
        expected = expected + F.conv2d(mixed, kernels, block.biases[which], groups=outputs)
    torch.testing.assert_close(block(features), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PEERS)
def test_every_parameter_learns(name: str) -> None:
    peer = random_peer(name, 2)
    (peer(frame(peer)) ** 2).mean().backward()
    for parameter in peer.parameters():
        assert parameter.grad is not None
        assert torch.count_nonzero(parameter.grad)


@pytest.mark.parametrize(
    ("name", "published_weights", "published_macs"),
    [
        ("FSRCNN", 12_464, None),  # its paper's table 1
        ("ESPCN", 21_184, 4.88e9),  # 21K and 5G where papers on efficient networks list it
        ("SESR-M5", 13_520, 3.11e9),  # its paper's table 1, as are the next two
        ("SESR-M11", 27_344, 6.30e9),
    ],
)
def test_published_weights_and_macs(name: str, published_weights: int, published_macs: float | None) -> None:
    peer = peer_from_name(name, 2)
    assert weights(peer.plain()) == published_weights
    if published_macs is not None:
        assert cost_from_peer(peer, LR_SIZE).macs == pytest.approx(published_macs, rel=2e-3)


def test_fsrcnn_is_published_with_its_last_layer_counted_for_each_sr_pixel() -> None:
    macs = cost_from_peer(peer_from_name("FSRCNN", 2), LR_SIZE).macs
    last = 9 * 9 * 56
    assert macs == 12_464 * PIXELS
    assert macs + last * 3 * PIXELS == pytest.approx(6.0e9, rel=2e-3)


@pytest.mark.parametrize(
    ("depth", "width", "scale", "published_params", "published_macs"),
    [(4, 16, 2, 10.2e3, 2.34e9), (10, 16, 2, 24.3e3, 5.60e9), (16, 64, 2, 596e3, 137.31e9), (4, 16, 4, 11.9e3, None)],
)
def test_ecbsr_is_published_with_slopes_counted_twice_and_params_as_macs(
    depth: int, width: int, scale: int, published_params: float, published_macs: float | None
) -> None:
    peer = Peer("", scale, "y", "", Ecbsr(depth, width, scale))
    counted = cost_from_peer(peer, (8, 8)).params + width * (1 + depth)
    assert counted == pytest.approx(published_params, rel=3e-3)
    if published_macs is not None:
        assert counted * PIXELS == pytest.approx(published_macs, rel=3e-3)


@pytest.mark.parametrize(
    ("name", "macs"), [("ECBSR-M4C16", 9_936), ("ECBSR-M10C16", 23_760), ("QuickSRNet-Small", 22_752)]
)
def test_macs_are_weights_times_pixels(name: str, macs: int) -> None:
    assert cost_from_peer(peer_from_name(name, 2), LR_SIZE).macs == macs * PIXELS


@pytest.mark.parametrize(("depth", "scale", "published"), [(2, 4, 33_264), (5, 2, 50_604)])
def test_published_params_of_quicksrnet(depth: int, scale: int, published: int) -> None:
    assert sum(parameter.numel() for parameter in quicksrnet(32, depth, scale).parameters()) == published


def test_params_hold_biases_and_slopes() -> None:
    assert cost_from_peer(peer_from_name("SESR-M5", 2), (8, 8)).params == 13_520 + 5 * 16
    assert cost_from_peer(peer_from_name("ESPCN", 2), (8, 8)).params == 21_184 + 64 + 32 + 4


def test_quicksrnet_without_its_random_part_enlarges_by_repetition() -> None:
    peer = peer_from_name("QuickSRNet-Small", 3)
    with torch.no_grad():
        for module in peer.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.round_()
                assert module.bias is not None
                module.bias.zero_()
    lr = frame(peer, dtype=torch.float32)
    assert torch.equal(peer(lr), F.interpolate(lr, scale_factor=3, mode="nearest"))


def test_sesr_centres_the_image_and_skips_from_its_first_block() -> None:
    body = Sesr(2, 8, 2).double()
    first, second, third, last = [block.kernel() for block in body.modules() if isinstance(block, LinearBlock)]
    lr = torch.rand(1, 1, *ODD, dtype=torch.float64)
    head = F.conv2d(lr - 0.5, first, padding=2)
    inner = F.relu(F.conv2d(F.relu(F.conv2d(head, second, padding=1)), third, padding=1))  # slopes start at zero
    expected = F.pixel_shuffle(F.conv2d(head + inner, last, padding=2), 2) + F.interpolate(lr, scale_factor=2)
    torch.testing.assert_close(body(lr), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("body", [Sesr(2, 8, 2), Ecbsr(2, 8, 2)], ids=["sesr", "ecbsr"])
def test_a_silent_tail_leaves_the_lr_pixel(body: nn.Module) -> None:
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.zero_()
    lr = torch.rand(1, 1, *ODD)
    assert torch.equal(body(lr), F.interpolate(lr, scale_factor=2, mode="nearest"))


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", PEERS)
def test_margin_is_what_an_sr_pixel_sees(name: str, scale: int) -> None:
    peer = peer_from_name(name, scale).double()
    for parameter in peer.parameters():  # nothing cancels and nothing is clipped
        nn.init.constant_(parameter, 1e-3)
    margin = margin_from_plain(peer.plain())
    lr = torch.full((1, peer.channels, 2 * margin + 5, 2 * margin + 5), 0.6, dtype=torch.float64, requires_grad=True)
    at = (margin + 2) * scale
    peer(lr)[..., at : at + scale, at : at + scale].sum().backward()
    assert lr.grad is not None
    seen = lr.grad[0].abs().sum((0, 1)).nonzero().flatten()
    assert max(margin + 2 - int(seen.min()), int(seen.max()) - margin - 2) == margin


@pytest.mark.parametrize("name", PEERS)
def test_runners_compute_what_torch_computes(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    peer = random_peer(name, 2, torch.float32)
    path = tmp_path / "peer.onnx"
    onnx_from_peer(peer, path)
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
    assert [file.name for file in tmp_path.iterdir()] == ["peer.onnx"]
    assert onnx.load(path).opset_import[0].version == 17
    onnx_from_peer(peer_from_name(name, 2), tmp_path / "untrained.onnx")
    operations = [[node.op_type for node in onnx.load(tmp_path / file).graph.node] for file in MODELS]
    assert operations[0] == operations[1]
    assert "Identity" not in operations[0]
    with OnnxRuntimeRunner(path, threads=1) as runner, OpenVinoRunner(path, threads=1) as other:
        assert runner.metadata == other.metadata
        told = runner.metadata
        assert (told.scale, told.color, told.multiple, told.precision) == (2, peer.color, 1, "fp32")
        for size in (ODD, (12, 9)):
            lr = frame(peer, size, torch.float32)
            expected = peer(lr).detach().numpy()
            for found in (runner.infer(lr.numpy()), other.infer(lr.numpy())):
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, float(np.abs(expected).max())))


def test_names() -> None:
    peers = [peer_from_name(name, 2) for name in PEERS]
    assert tuple(peer.name for peer in peers) == PEERS
    assert [peer.name for peer in peers if peer.color == "rgb"] == ["QuickSRNet-Small"]
    with pytest.raises(ValueError, match="no peer 'EDSR'; there are FSRCNN, ESPCN"):
        peer_from_name("EDSR", 2)
