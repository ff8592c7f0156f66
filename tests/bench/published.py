"""The networks that Wu et al. (arXiv 2101.06658) found in the `trilevel` space, as the authors' code line has them."""

from pipeline.architecture import Architecture, Cell, Up
from pipeline.trilevel_space import WIDTHS

LETTERS = {"k": "conv1", "3": "conv3", "r": "residual", "d": "dws"}
# Path, ops and width indices of each cell, thousands of params, billions of MACs at 256x256.
PUBLISHED = {
    "A-1": ("cccucu", "k3kk3 ddd3r kk3kd 33k33", "4000 1140 4421 0411", 335.4, 78.4),
    "A-2": ("cccccuu", "ddddd k3d3d dddrd dddrr 3dddr", "3042 4440 1122 2242 2000", 666.0, 88.8),
    "B-1": ("ccc", "dkddd dk3d3 rkkkk", "1102 0300 4000", 234.2, 15.3),
    "B-2": ("cccccu", "kkddk drd33 3k3kd dd33d d3333", "1040 1232 4401 4300 1440", 509.1, 33.4),
    "B-3": ("ccuu", "kkkrk dd33k", "2033 4310", 264.5, 17.3),
}


def published(name: str) -> Architecture:
    """x4, in the training form of the published code."""
    path, ops, widths, *_ = PUBLISHED[name]
    cells = iter(
        Cell(tuple(LETTERS[letter] for letter in chain), tuple(WIDTHS[int(index)] for index in bounds))
        for chain, bounds in zip(ops.split(), widths.split(), strict=True)
    )
    steps: list[Cell | Up] = [next(cells) if letter == "c" else "up" for letter in path]
    return Architecture("trilevel", 4, "rgb", 64, tuple(steps), skip="none", shuffle=1 if name[0] == "A" else 4)
