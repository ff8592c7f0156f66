"""What this device is: its processor, what that can compute with, and the versions of a runtime around it."""

import os
import platform
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


def usable_cores() -> int:
    """Cores that this process may run on, which are fewer than the device's in many a container."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
