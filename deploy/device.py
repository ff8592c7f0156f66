"""What this device is: its processor, what that can compute with, and the versions of a runtime around it."""

import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from deploy.cuda import Gpu
from deploy.runners import RuntimeMissing

# Of a processor, what the runtimes choose their kernels by.
FEATURES = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimdhp",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)


def device_facts(runtime: str) -> dict[str, str]:
    """Text pairs: "gpu" where `runtime` works on one, "cpu", "cores" that may be used, "features", "os".

    Raises RuntimeMissing where the GPU is asked for and absent.
    """
    facts = {}
    if runtime.endswith((" cuda", "tensorrt", "tensorrt-rtx")):
        gpu = Gpu(runtime)
        facts["gpu"] = gpu.name
        gpu.close()
    known = _cpuinfo()
    has = {*known.get("flags", known.get("Features", "")).split()}
    return {
        **facts,
        "cpu": known.get("model name", known.get("Model", "")) or platform.processor() or platform.machine(),
        "cores": str(usable_cores()),
        "features": " ".join(feature for feature in FEATURES if feature in has),
        "os": platform.platform(),
    }


def usable_cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may keep busy: in many a container fewer than the device's, or but a share of their time.

    groups, own: where Linux keeps the control groups, and names that of this process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([cores, *_quotas(groups, own)])


def _quotas(groups: Path, own: Path) -> Iterator[int]:
    """The time of each period that a control group of this process may use, in cores, rounded up."""
    lines = own.read_text(encoding="utf-8").splitlines() if own.is_file() else []
    for line in lines:
        if line.startswith("0::/"):  # of version 2
            group = groups / line.removeprefix("0::/")
            for folder in (group, *group.parents):
                if (folder / "cpu.max").is_file():
                    quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
                    if quota != "max":
                        yield math.ceil(int(quota) / int(period))


def runtime_versions(runtime: str) -> dict[str, str]:
    """Name -> version of the runtime's package, numpy and Python. Raises RuntimeMissing."""
    package = runtime.partition(" ")[0]
    for name in (package, f"{package}-gpu"):
        with suppress(PackageNotFoundError):
            return {package: version(name), "numpy": version("numpy"), "python": platform.python_version()}
    raise RuntimeMissing(package)


def _cpuinfo() -> dict[str, str]:
    """Name -> value of the first processor that Linux lists; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found
