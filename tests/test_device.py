import os
import platform
from importlib.metadata import version
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
