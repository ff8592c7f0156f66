import os
import platform
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.device import device_facts, runtime_versions, usable_cores
from deploy.runners import RuntimeMissing


def test_processor_is_named() -> None:
    facts = device_facts("onnxruntime")
    assert facts["cpu"]
    assert facts["cores"] == str(usable_cores())
    assert facts["os"] == platform.platform()
    assert "gpu" not in facts
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("own", "quotas", "cores"),
    [
        ("0::/\n", {".": "100000 100000"}, 1),
        ("0::/\n", {".": "max 100000"}, None),
        ("0::/pods/one\n", {"pods": "5000 100000", "pods/one": "max 100000"}, 1),
        ("3:cpuset:/\n0::/pods/one\n", {"pods/one": "99900000 100000"}, None),
        (None, {".": "100000 100000"}, None),
    ],
)
def test_a_quota_of_time_counts_as_cores(
    tmp_path: Path, own: str | None, quotas: dict[str, str], cores: int | None
) -> None:
    for group, quota in quotas.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "cpu.max").write_text(f"{quota}\n")
    if own is not None:
        (tmp_path / "own").write_text(own)
    assert usable_cores(tmp_path, tmp_path / "own") == (cores or usable_cores())


@pytest.mark.usefixtures("cuda_driver")
def test_gpu_is_named_where_the_runtime_works_on_it() -> None:
    for runtime in ("onnxruntime cuda", "torch cuda", "tensorrt", "tensorrt-rtx"):
        assert device_facts(runtime)["gpu"] == "NVIDIA Test"


def test_gpu_that_is_absent_is_missed(cuda_driver: SimpleNamespace) -> None:
    cuda_driver.cuInit = lambda _: 100
    with pytest.raises(RuntimeMissing, match="onnxruntime cuda finds no NVIDIA GPU"):
        device_facts("onnxruntime cuda")


def test_versions_are_of_the_package_whatever_it_works_on() -> None:
    for runtime in ("onnxruntime", "onnxruntime cuda"):
        versions = runtime_versions(runtime)
        assert versions["onnxruntime"] == version("onnxruntime")
        assert versions.keys() == {"onnxruntime", "numpy", "python"}


def test_runtime_that_is_absent_is_missed() -> None:
    with pytest.raises(RuntimeMissing, match="abacus is not installed"):
        runtime_versions("abacus")
