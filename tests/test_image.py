"""Builds both images with buildah on a base made by debootstrap, and uses them; `make image-test`."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
TOOLS = ("buildah", "debootstrap", "make")
PIPELINE, RUNTIME = "sr-pipeline", "sr-pipeline-runtime"
SMALL = (
    "--set=budget.macs=400K",
    "--set=budget.lr_size=[10, 10]",
    "--set=search.steps=12",
    "--set=train.batch=2",
    "--set=train.patch=16",
    "--set=verify.min_gain_over_bicubic_db=-20",
    "--set=verify.fp16_mean_quality_drop_db=0.01",
)
MARK = "# this line stays out of the images"

Command = Callable[..., str]

pytestmark = pytest.mark.image


def command(*arguments: object, **environment: str) -> str:
    """Runs a program and returns its stdout; a failure shows the end of all that it said."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run(words, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-5000:]}{done.stderr[-5000:]}")
    return done.stdout


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for everything that the test builds: gigabytes, so it does not outlive the test."""
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    with tempfile.TemporaryDirectory(prefix="sr-image-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def pip_options(place: Path) -> list[str]:
    """This machine's pip settings as options of the build: a secret, and the files and folders that it names."""
    settings = {}
    for line in command(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        settings[name.rpartition(".")[2]] = str(ast.literal_eval(value))
    settings = {name: settings[name] for name in ("cert", "find-links", "index-url", "proxy") if name in settings}
    config = place / "pip.conf"
    config.write_text("\n".join(["[global]", MARK, *(f"{name} = {value}" for name, value in settings.items())]))
    paths = [path for value in settings.values() for path in value.split() if Path(path).is_absolute()]
    return [f"--secret=id=pip,src={config}", *(f"--volume={path}:{path}:ro" for path in paths)]


@pytest.fixture(scope="module")
def buildah(place: Path) -> Command:
    """Runs buildah, or a program that runs it, without a daemon and with a storage of its own."""
    config = place / "storage.conf"
    config.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{place}/storage"\nrunroot = "{place}/run"\n')
    environment = {"CONTAINERS_STORAGE_CONF": str(config), "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}

    def run(*arguments: object, program: str = "buildah") -> str:
        return command(program, *arguments, **environment)

    return run


@pytest.fixture(scope="module")
def base(place: Path, buildah: Command) -> str:
    """Debian with Python, under the name that the Dockerfile begins with."""
    found = re.search(r"^ARG BASE=(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    root = place / "debian"
    command("debootstrap", "--variant=minbase", "--include=python3-pip,python3-venv", "bookworm", root)
    for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / leftover)
    container = buildah("from", "scratch").strip()
    buildah("copy", "--quiet", container, root, "/")
    buildah("commit", "--quiet", "--rm", container, found[1])
    shutil.rmtree(root)
    return found[1]


@pytest.fixture(scope="module")
def images(base: str, buildah: Command, pip_options: list[str]) -> dict[str, dict[str, Any]]:
    """What `buildah inspect` says of the base and of both images, as `make image` builds them."""
    options = ["--pull-never", *pip_options]
    buildah("image", "BUILDER=buildah", f"IMAGE_OPTIONS={' '.join(options)}", program="make")
    return {name: json.loads(buildah("inspect", "--type=image", name)) for name in (base, PIPELINE, RUNTIME)}


@pytest.fixture(scope="module")
def work(place: Path) -> Path:
    """The folder that containers work in."""
    folder = place / "work"
    folder.mkdir()
    folder.chmod(0o777)  # the images' user is not the one who runs the test
    pixels = np.linspace(0, 255, 30 * 40 * 3).reshape(30, 40, 3)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def inside(images: dict[str, dict[str, Any]], buildah: Command, work: Path) -> Iterator[Command]:
    """Runs a program in a container of an image, as the image's user."""
    containers = {name: buildah("from", "--pull-never", name).strip() for name in images}

    def run(name: str, *arguments: object, options: tuple[str, ...] = ()) -> str:
        return buildah("run", f"--volume={work}:/work", *options, containers[name], "--", *arguments)

    yield run
    buildah("rm", *containers.values())


@pytest.fixture(scope="module")
def entry(images: dict[str, dict[str, Any]], inside: Command) -> Command:
    """What `docker run NAME ARGUMENTS` does."""

    def run(name: str, *arguments: object, options: tuple[str, ...] = ()) -> str:
        return inside(name, *images[name]["OCIv1"]["config"]["Entrypoint"], *arguments, options=options)

    return run


@pytest.fixture(scope="module")
def model(entry: Command, work: Path) -> Path:
    """What search, export and verify leave, relative to the working folder."""
    entry(PIPELINE, "search", "-o", "runs/small", *SMALL)
    entry(PIPELINE, "export", "runs/small")
    shown = entry(PIPELINE, "verify", "runs/small", *SMALL)
    assert re.search(r"verdict +passed", shown)
    report = json.loads((work / "runs/small/verify/report.json").read_text())
    assert report["passed"] is True
    return Path("runs/small/export/model.onnx")


def test_sizes(
    images: dict[str, dict[str, Any]], pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    layers = {name: json.loads(image["Manifest"])["layers"] for name, image in images.items()}
    sizes = {name: round(sum(layer["size"] for layer in found) / 1e6) for name, found in layers.items()}
    told = ", ".join(f"{name} {size} MB" for name, size in sizes.items())
    with capsys.disabled():
        pytestconfig.get_terminal_writer().line(f"\n{told}")
    base, pipeline, runtime = sizes.values()
    assert runtime - base < 120
    assert pipeline - base < 1800


def test_runtime_enlarges_as_the_pipeline_does(entry: Command, work: Path, model: Path) -> None:
    entry(PIPELINE, "upscale", "runs/small", "photo.png", "-o", "pipeline.png")
    entry(RUNTIME, model, "photo.png", "runtime.png")
    with Image.open(work / "runtime.png") as ours, Image.open(work / "pipeline.png") as theirs:
        assert ours.size == (80, 60)
        assert ours.tobytes() == theirs.tobytes()


def test_any_user_may_run_them(entry: Command, work: Path, model: Path) -> None:
    someone = ("--user=4242:4242",)
    entry(PIPELINE, "search", "-o", "someone", *SMALL, options=someone)
    entry(RUNTIME, model, "photo.png", "someone.png", options=someone)
    assert {(work / name).stat().st_uid for name in ("someone", "someone.png")} == {4242}


@pytest.mark.parametrize("name", [PIPELINE, RUNTIME])
def test_user_is_not_root_and_changes_nothing_in_the_image(inside: Command, name: str) -> None:
    assert inside(name, "id", "-un") == "sr\n"
    assert inside(name, "find", "/opt", "/usr", "-writable", "-not", "-type", "l") == ""


def test_runtime_has_neither_torch_nor_pipeline(inside: Command) -> None:
    program = "from importlib.util import find_spec as f; print([n for n in ('deploy', 'torch', 'pipeline') if f(n)])"
    assert inside(RUNTIME, "python", "-c", program) == "['deploy']\n"
    options = ("--user=root",)
    for name in ("*torch*", "pipeline"):
        assert inside(RUNTIME, "find", "/", "-xdev", "-iname", name, options=options) == ""


def test_pipeline_has_the_pinned_torch(inside: Command) -> None:
    pinned = re.search(r"^torch==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    version = inside(PIPELINE, "python", "-c", "import torch; print(torch.__version__)").strip()
    assert version.partition("+")[0] == pinned[1]  # "+cpu" where pip was offered that build


@pytest.mark.parametrize("name", [PIPELINE, RUNTIME])
def test_pip_settings_stay_outside(images: dict[str, dict[str, Any]], inside: Command, place: Path, name: str) -> None:
    folders = ("/etc", "/home", "/opt", "/root", "/run", "/tmp", "/var")
    found = inside(name, "sh", "-c", f"grep -rlF '{MARK}' {' '.join(folders)} || true", options=("--user=root",))
    assert found == ""
    settings = [line.partition(" = ")[2] for line in (place / "pip.conf").read_text().splitlines() if " = " in line]
    told = json.dumps(images[name])
    assert [value for value in settings if value in told] == []


def test_only_what_the_images_are_made_of_is_in_them(inside: Command) -> None:
    listed = inside(PIPELINE, "ls", "-A", "/opt/sr-pipeline").split()
    assert {*listed} - {"sr_pipeline.egg-info"} == {
        "LICENSE", "README.md", "constraints.txt", "deploy", "pipeline", "pipeline.toml", "pyproject.toml"
    }  # fmt: skip
    sources = {path.name for path in (ROOT / "deploy").glob("*.py")}
    assert {*inside(RUNTIME, "ls", "-A", "/opt/sr-pipeline/deploy").split()} == sources
