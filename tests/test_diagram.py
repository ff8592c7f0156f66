from xml.etree.ElementTree import fromstring

from pipeline.architecture import Architecture, Cell
from pipeline.budget import parts_from_architecture
from pipeline.diagram import draw_architecture


def test_every_operation_is_drawn_with_its_cost(architecture: Architecture) -> None:
    svg = fromstring(draw_architecture(architecture, (24, 32)))
    parts = list(parts_from_architecture(architecture, (24, 32)))
    texts = [text.text or "" for text in svg.iter("text")]
    assert sum("%" in text for text in texts) == len(parts)
    for part in parts:
        assert any(f", {part.inputs}→{part.outputs}" in text for text in texts)
    assert sum("plus" in (circle.get("class") or "") for circle in svg.iter("circle")) == sum(
        cell.residual for cell in architecture.cells
    )
    assert any("skip" in text for text in texts) == (architecture.skip != "none")
    height = float(svg.get("viewBox", "").split()[3])
    assert all(float(rect.get("y", "")) + float(rect.get("height", "")) <= height for rect in svg.iter("rect"))


def test_words_of_a_network() -> None:
    cells = (Cell(("conv3", "conv1"), (6,), residual=False),)
    network = Architecture("edge", 2, "y", 8, cells, stem=5, activation="leaky_relu", unshuffle=2, shuffle=4)
    texts = [
        text.text
        for text in fromstring(draw_architecture(network, (24, 32))).iter("text")
        if text.get("class") == "inside"
    ]
    assert texts == [
        "luma, low resolution",
        "space to depth ×2",
        "conv 5×5, 4→8, leaky relu",
        "conv 3×3, 8→6, leaky relu",
        "conv 1×1, 6→8, leaky relu",
        "conv 3×3, 8→16",
        "+ skip: each pixel repeated",
        "depth to space ×4",
        "luma, ×2",
    ]
