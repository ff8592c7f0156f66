"""Packs a workload for a device without torch: a zip with models, what times them, and how to go about it."""

import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import deploy
from deploy.bundle import Bundle
from pipeline.architecture import Architecture
from pipeline.manifest import atomic_path
from pipeline.workload import Task, write_workload

# Of deploy/, what measures a bundle.
PARTS = (
    "__init__.py",
    "bundle.py",
    "cuda.py",
    "device.py",
    "files.py",
    "measure.py",
    "onnx_properties.py",
    "openers.py",
    "openvino_runner.py",
    "runners.py",
    "timing.py",
)
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date of a zip: the same bundle makes the same bytes
README = """\
Networks that sr-pipeline measures a device with, for {runtime} in {precision}, one LR frame of {height}x{width}.

The device needs Python 3.11 or newer, numpy and {package}. In this folder:

    python -m deploy.measure . -o result.json --minutes {minutes:g}

It takes about {minutes:g} minutes at most; leave the device alone meanwhile. --help lists the options: threads, time
limit, another runtime or precision that these models fit. Bring result.json back, and

    sr-pipeline profile NAME --import result.json

writes the device's profile, profiles/NAME.toml.
"""


def write_bundle(
    path: Path,
    task: Task,
    architectures: Sequence[Architecture],
    runtime: str,
    precision: str,
    minutes: float,
    on_written: Callable[[int, int], None] | None = None,
) -> Bundle:
    """Writes the zip that a device measures itself with: models, what runs and times them, and a README.

    Raises BackendMissing for a pair that nothing runs, ConfigError where nothing can be written.
    """
    height, width = task.lr_size
    package, _, gpu = runtime.partition(" ")
    package += "-gpu" if gpu else ""
    words = {"runtime": runtime, "precision": precision, "package": package, "minutes": minutes}
    sources = Path(deploy.__file__).parent
    with atomic_path(path) as temporary, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = write_workload(folder, task, architectures, runtime, precision, on_written)
        (folder / "README.txt").write_text(README.format(height=height, width=width, **words), encoding="utf-8")
        contents = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        contents |= {f"deploy/{part}": (sources / part).read_bytes() for part in PARTS}
        with zipfile.ZipFile(temporary, "w") as archive:
            for member, content in sorted(contents.items()):
                archive.writestr(zipfile.ZipInfo(member, EPOCH), content, zipfile.ZIP_DEFLATED, 9)
    return bundle
