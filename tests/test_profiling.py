import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from deploy.openers import PRECISIONS, RUNTIMES
from pipeline import measure
from pipeline.cli import commands, main
from pipeline.config import load_settings
from pipeline.errors import BackendMissing, ConfigError, StaleArtifact
from pipeline.profile import profile_from_toml
from pipeline.profiling import task_from_settings
from pipeline.workload import Task

NETWORKS = 14  # more than a group
TINY = ["--set", "budget.lr_size=[12, 16]"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "NETWORKS", NETWORKS)
    return tmp_path


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """A Python that has numpy and onnxruntime, and of this project only what a bundle brings."""
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    wanted = [f"{name}=={version(name)}" for name in ("numpy", "onnxruntime")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)

    def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([python, *arguments], cwd=cwd, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def bundle(here: Path) -> Path:
    """A bundle, and the folder beside it that a device has unpacked it into."""
    path = here / "out.zip"
    assert main(["profile", "--bundle", str(path), *TINY]) == 0
    with zipfile.ZipFile(path) as archive:
        archive.extractall(here / "out")
    return path


def test_device_without_torch_measures_itself(
    device: Callable[..., "subprocess.CompletedProcess[str]"], bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bundle.with_suffix("")
    absent = device(
        "-c", "import deploy, importlib.util as u; print([u.find_spec(n) for n in ('torch', 'pipeline')])", cwd=folder
    )
    assert absent.stdout == "[None, None]\n"
    done = device("-m", "deploy.measure", ".", "-o", "result.json", "--threads", "1", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines()[-1].startswith(f"{2 * NETWORKS}/{2 * NETWORKS} timings")
    result = folder / "result.json"
    assert main(["profile", "far", "--import", str(result), "--bundle", str(bundle), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told == {
        "profile": "profiles/far.toml",
        "name": "far",
        "candidate": "onnxruntime fp32",
        "networks": NETWORKS,
    }
    asked = ["--runtime", "openvino", "--precision", "bf16", "--threads", "9"]
    assert main(["profile", "wrong", "--import", str(result), *asked]) == ConfigError.exit_code
    shown = capsys.readouterr().err
    assert "runtime is onnxruntime, not openvino; precision is fp32, not bf16; threads is 1, not 9" in shown
    profile = profile_from_toml(Path("profiles/far.toml"))
    assert (profile.name, profile.threads, profile.lr_size) == ("far", 1, (12, 16))
    assert profile.versions["onnxruntime"] == version("onnxruntime")

    assert main(["profile", "--bundle", "other.zip", "--set", "budget.lr_size=[12, 18]"]) == 0
    assert main(["profile", "far2", "--import", str(result), "--bundle", "other.zip"]) == StaleArtifact.exit_code
    assert "error: " in (shown := capsys.readouterr().err)
    assert "is the result of another bundle than other.zip" in shown
    assert [path.name for path in Path("profiles").iterdir()] == ["far.toml"]


def test_device_without_a_runtime_says_so(
    device: Callable[..., "subprocess.CompletedProcess[str]"], bundle: Path
) -> None:
    done = device("-m", "deploy.measure", ".", "--runtime", "openvino", cwd=bundle.with_suffix(""))
    assert (done.returncode, done.stderr) == (1, "error: openvino is not installed; pip install openvino\n")
    assert not (bundle.with_suffix("") / "result.json").exists()


def test_machine_is_measured_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "here", "--threads", "1", *TINY]) == 0
    captured = capsys.readouterr()
    for words in ("calibration", "fastest", "slowest", "spread", "profiles/here.toml", "12x16", "1 threads"):
        assert words in captured.out
    assert f"models {NETWORKS + 1}/{NETWORKS + 1}" in captured.err
    assert f"timings {2 * NETWORKS}/{2 * NETWORKS}" in captured.err
    assert f"only {NETWORKS} networks were fast enough" in captured.err
    assert len(profile_from_toml(Path("profiles/here.toml")).rows) == NETWORKS


def test_name_is_made_of_device_and_candidate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "NETWORKS", 1)
    monkeypatch.setattr("pipeline.profiling.device_facts", lambda _: {"cpu": "Tiny(R) CPU @ 1.0"})
    assert main(["profile", "--lr-size", "10x8"]) == 0
    assert profile_from_toml(Path("profiles/tiny-r-cpu-1-0-onnxruntime-fp32.toml")).lr_size == (10, 8)
    assert "LR 10x8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--precision", "bf16"], BackendMissing, "onnxruntime does not run bf16 here"),
        (["--runtime", "onnxruntime cuda"], BackendMissing, "onnxruntime has no CUDAExecutionProvider"),
        (["--runtime", "abacus"], ConfigError, "'abacus'"),
        (["--lr-size", "360"], ConfigError, "'360' is no height x width; expected 360x640"),
        (["--lr-size", "0x4"], ConfigError, "'0x4' is no height x width"),
        (["--lr-size", "5x6", "--set", "search.unshuffle=2"], ConfigError, "5x6 is no multiple of unshuffle 2"),
        (["--minutes", "0"], ConfigError, "--minutes"),
        (["--minutes", "0.0001"], ConfigError, "no time was left"),
        (["--import", "none.json"], ConfigError, "cannot read none.json"),
        (["--import", "broken.json"], StaleArtifact, "is no result of"),
        (["--import", "binary.json"], StaleArtifact, "it is not JSON"),
        (["--import", "broken.json", "--set", "task.scale=3"], ConfigError, "--set: not for --import"),
        (["--import", "broken.json", "--minutes", "2"], ConfigError, "--minutes: not for --import"),
        (["--bundle", "x.zip"], ConfigError, "NAME: not for --bundle alone"),
        (["--bundle", "x.zip", "--threads", "2"], ConfigError, "NAME, --threads: not for --bundle alone"),
    ],
)  # fmt: skip
def test_mistake_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: type[Any], message: str
) -> None:
    (here / "broken.json").write_text("{")
    (here / "binary.json").write_bytes(b"\xff" * 5000)
    task = [] if "--import" in arguments else TINY
    assert main(["profile", "name", *task, *arguments]) == error.exit_code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert len(line) < 500
    assert {path.name for path in here.rglob("*") if path.is_file()} == {"broken.json", "binary.json"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--precision", "bf16"], BackendMissing), (["--threads", "1"], ConfigError), (["--force"], ConfigError)],
)
def test_bundle_that_cannot_be_made_leaves_nothing(here: Path, arguments: list[str], code: type[Any]) -> None:
    assert main(["profile", "--bundle", "x.zip", *TINY, *arguments]) == code.exit_code
    assert not any(here.iterdir())


@pytest.mark.parametrize("name", ["some/desk", "../desk", "/desk", "desk.toml", ".desk"])
def test_name_is_that_of_a_file_in_profiles(here: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["profile", name, *TINY]) == ConfigError.exit_code
    assert f"error: {name!r} is no name of a profile; expected a name of letters" in capsys.readouterr().err
    assert not any(here.iterdir())


@pytest.mark.parametrize("how", [[], ["--import", "result.json"]], ids=["measured", "imported"])
def test_profile_is_replaced_only_by_force(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: list[str]
) -> None:
    monkeypatch.setattr(measure, "NETWORKS", 1)
    assert main(["profile", "desk", *TINY]) == 0
    kept = (here / "profiles" / "desk.toml").read_bytes()
    made = profile_from_toml(here / "profiles" / "desk.toml")
    monkeypatch.setattr("pipeline.profiling.read_result", lambda *_: {})
    monkeypatch.setattr("pipeline.profiling.profile_from_result", lambda *_: replace(made, created="now"))
    monkeypatch.setattr("pipeline.profiling.measure_device", lambda *_, **__: replace(made, created="now"))
    assert main(["profile", "desk", *(how or TINY)]) == ConfigError.exit_code
    shown = capsys.readouterr().err
    assert "error: there is a profile at profiles/desk.toml already" in shown
    assert "--force" in shown
    assert (here / "profiles" / "desk.toml").read_bytes() == kept
    assert main(["profile", "desk", *(how or TINY), "--force"]) == 0
    assert profile_from_toml(here / "profiles" / "desk.toml") == replace(made, created="now")


def test_bundle_that_leaves_its_folder_is_refused(here: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(bundle, "a") as archive:
        archive.writestr("../evil.py", "")
    result = {"schema": 1, "bundle": json.loads((here / "out" / "bundle.json").read_text())}
    (here / "result.json").write_text(json.dumps(result))
    assert main(["profile", "far", "--import", "result.json", "--bundle", str(bundle)]) == StaleArtifact.exit_code
    assert "error: the bundle names '../evil.py', which leaves its folder" in capsys.readouterr().err
    assert not (here / "profiles").exists()
    assert not (here.parent / "evil.py").exists()


@pytest.mark.parametrize(
    ("activation", "measured"), [("auto", "relu"), ("relu", "relu"), ("leaky_relu", "leaky_relu"), ("prelu", "prelu")]
)
@pytest.mark.parametrize("budget", [[], ["budget.latency_ms=9", "budget.profile=desk"]])
def test_profile_is_of_the_activation_that_a_budget_of_time_searches_with(
    budget: list[str], activation: str, measured: str
) -> None:
    settings = load_settings(None, [f"search.activation={activation}", *budget])
    assert task_from_settings(settings, (12, 16)) == Task(2, "rgb", (12, 16), measured)  # type: ignore[arg-type]


def test_command_takes_what_deploy_runs() -> None:
    choices = {option.name: option.type.to_info_dict().get("choices") for option in commands.commands["profile"].params}
    assert (choices["runtime"], choices["precision"]) == (RUNTIMES, PRECISIONS)
