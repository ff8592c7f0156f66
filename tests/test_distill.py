from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.architecture import Architecture
from pipeline.distill import taught, teacher_file, teacher_from_file
from pipeline.errors import ConfigError, StaleArtifact


@pytest.mark.parametrize("part", ["search/weights.safetensors", "export/plain.safetensors", "export/model.onnx", "."])
def test_a_teacher_of_any_form_gives_the_same_lesson(small_run: Path, part: str) -> None:
    lr = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    run = small_run / "run"
    lesson = taught(teacher_from_file(teacher_file(run / part), 2, "rgb", 9), lr)
    reference = taught(teacher_from_file(run / "search" / "weights.safetensors", 2, "rgb", 9), lr)
    assert lesson.shape == (2, 3, 18, 22)
    assert 0 <= lesson.min() <= lesson.max() <= 1
    np.testing.assert_allclose(lesson, reference, atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "color", "message"), [(3, "rgb", "the task is x3 rgb"), (2, "y", "the task is x2 y")]
)
def test_a_teacher_of_another_task_is_refused(small_run: Path, scale: int, color: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        teacher_from_file(small_run / "run" / "export" / "model.onnx", scale, color, 9)  # type: ignore[arg-type]


def test_what_is_no_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no teacher at"):
        teacher_file(tmp_path / "absent.onnx")
    with pytest.raises(ConfigError, match="no teacher at"):
        teacher_file(tmp_path)
    other = tmp_path / "weights.pt"
    other.write_bytes(b"")
    with pytest.raises(ConfigError, match="is no teacher"):
        teacher_from_file(other, 2, "rgb", 9)


def test_a_damaged_teacher_is_named(searched_run: Callable[..., Path]) -> None:
    weights = searched_run() / "search" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(StaleArtifact, match=r"weights\.safetensors"):
        teacher_from_file(weights, 2, "rgb", 9)


def test_a_teacher_that_cannot_read_the_patches_is_refused(searched_run: Callable[..., Path]) -> None:
    run = searched_run(Architecture("edge", 2, "rgb", 8, (), unshuffle=2, shuffle=4))
    with pytest.raises(ConfigError, match="multiples of 2, not patches of 9"):
        teacher_from_file(teacher_file(run), 2, "rgb", 9)
