import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from pipeline import errors, stages
from pipeline.cli import INTERRUPTED, commands, main
from pipeline.manifest import read_manifest, write_json, write_manifest

ROOT = Path(__file__).parents[1]
WITHOUT = """
import sys
for name in {missing!r}:
    sys.modules[name] = None
from pipeline.cli import main
sys.exit(max(main(arguments) for arguments in {calls!r}))
"""


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_run / "run", tmp_path / "run"))


@pytest.fixture
def config(small_run: Path) -> str:
    return str(small_run / "small.toml")


def without(missing: list[str], *calls: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs commands in a process in which some packages cannot be imported."""
    program = WITHOUT.format(missing=missing, calls=calls)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def last_object(text: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(text.splitlines()[-1])
    return value


def test_help_needs_nothing_but_click() -> None:
    missing = ["torch", "numpy", "onnx", "onnxruntime", "PIL", "rich", "skimage", "safetensors"]
    done = without(missing, [], ["--help"], ["--version"], *([name, "--help"] for name in commands.commands))
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("search", "export", "verify", "run", "upscale", "show"):
        assert f"Usage: sr-pipeline {name} " in done.stdout


def test_settings_are_refused_before_torch_is_asked_for() -> None:
    done = without(["torch"], ["run", "--set", "search.stesp=1"])
    assert done.returncode == 2
    assert "did you mean search.steps?" in done.stderr


def test_runs_are_shown_and_used_without_torch(run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "photo.png")
    done = without(["torch"], ["show", str(run)], ["upscale", str(run), str(tmp_path / "photo.png")])
    assert (done.returncode, done.stderr) == (0, "")
    with Image.open(tmp_path / "photo_x2.png") as image:
        assert image.size == (16, 12)


def test_command_is_installed() -> None:
    (script,) = entry_points(group="console_scripts", name="sr-pipeline")
    assert script.load() is main


def test_finished_run_is_told_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(run)]) == 0
    shown = capsys.readouterr().out
    for part in ("architecture", "params", "MACs", "bicubic", "ours", "cup", "spoon", "SSIM", "passed"):
        assert part in shown
    for form in ("plain form", "onnxruntime fp32", "onnxruntime fp16"):
        assert form in shown


def test_run_again_has_nothing_to_do(run: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert main(["run", "-c", config, "-o", str(run), "--json"]) == 0
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    captured = capsys.readouterr()
    assert [line for line in captured.err.splitlines() if "is current" in line] == [
        f"{stage}: {run} is current" for stage in ("search", "export", "verify")
    ]
    assert len(captured.out.splitlines()) == 1
    facts = last_object(captured.out)
    assert (facts["run"], facts["passed"]) == (str(run), True)
    assert {"architecture_id", "budget", "cost", "quality", "parity"} <= facts.keys()


def test_run_repeats_only_what_a_setting_touches(run: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "-c", config, "-o", str(run), "--set", "verify.parity_db=80"]
    assert main(arguments) == 0
    current = re.findall(r"(\w+): .* is current", capsys.readouterr().err)
    assert current == ["search", "export"]


def test_search_with_another_seed_replaces_the_run(run: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "-c", config, "-o", str(run), "--seed", "5", "--json"]) == 0
    captured = capsys.readouterr()
    facts = last_object(captured.out)
    assert (facts["seed"], facts["passed"]) == (5, None)
    assert "search/weights.safetensors was written again" in facts["stages"]["export"]["stale"]
    assert re.search(r"train 12/12  loss [\d.]+  [\d.]+ dB  [\d.]+K MACs  [\d.]+K params  \d+% of", captured.err)
    assert main(["verify", "-c", config, str(run)]) == errors.StaleArtifact.exit_code
    assert f"run `sr-pipeline export {run}`" in capsys.readouterr().err


def test_export_adds_a_precision(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "export")
    for arguments, models in (([], ["model.onnx"]), (["--precision", "fp16"], ["model.fp16.onnx", "model.onnx"])):
        assert main(["export", str(run), *arguments, "--json"]) == 0
        outputs = last_object(capsys.readouterr().out)["stages"]["export"]["outputs"]
        assert sorted(name for name in outputs if name.endswith(".onnx")) == models


def test_upscale_tells_what_it_wrote(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("L", (9, 5), 200).save(tmp_path / "grey.png")
    assert main(["upscale", str(run), str(tmp_path / "grey.png"), "-o", str(tmp_path / "out.png"), "--json"]) == 0
    told = last_object(capsys.readouterr().out)
    assert told == {"model": str(run / "export" / "model.onnx"), "written": [str(tmp_path / "out.png")]}
    with Image.open(tmp_path / "out.png") as image:
        assert (image.mode, image.size) == ("L", (18, 10))


def perturb(model: Path) -> None:
    """Changes one weight of a model, and its record, so that only its outputs give it away."""
    proto = onnx.load(model)
    weight = max(proto.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.5
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(proto, model)
    recorded = read_manifest(model.parent)
    write_manifest(model.parent, inputs=recorded.inputs, settings=recorded.settings, outputs=recorded.outputs)


def test_perturbed_weight_fails_the_verdict(run: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    perturb(run / "export" / "model.onnx")
    assert main(["verify", str(run), "-c", config, "--json"]) == errors.ParityFailed.exit_code
    captured = capsys.readouterr()
    told = last_object(captured.out)
    assert (told["passed"], told["exit_code"]) == (False, 7)
    assert told["error"].startswith("onnxruntime fp32 and training form agree to")
    failed = [row["candidate"] for row in told["parity"] if not row["passed"]]
    assert failed[0] == "onnxruntime fp32"
    assert {*failed[1:]} <= {"openvino fp32", "openvino bf16", "openvino fp16"}  # they run the same file
    assert "FAILED" in captured.err
    assert len(captured.out.splitlines()) == 1


def test_verify_asks_for_the_budget_of_the_search_or_another(
    run: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(run), "--set", "data.benchmarks=/nowhere", "-c", config]) == errors.DataError.exit_code
    assert main(["verify", str(run), "-c", config, "--set", "budget.macs=1K"]) == errors.BudgetMissed.exit_code
    assert "MACs at LR 10x10, the budget is 1,000" in capsys.readouterr().err
    assert main(["verify", str(run), "-c", config]) == 0


def broken(folder: Path) -> None:
    Image.new("RGB", (99, 99)).save(folder / "good.png")
    (folder / "broken.png").write_bytes((folder / "good.png").read_bytes()[:60])


def small(folder: Path) -> None:
    Image.new("RGB", (24, 24)).save(folder / "small.png")


def nothing(folder: Path) -> None:
    (folder / "notes.txt").write_text("none")


TRAIN = "--set=data.train={folder}"


@pytest.mark.parametrize(
    ("prepare", "arguments", "error", "message"),
    [
        (nothing, ["search", "--set=data.train=/nowhere"], errors.DataError, "no folder /nowhere"),
        (nothing, ["search", TRAIN], errors.DataError, "no images in"),
        (broken, ["search", TRAIN], errors.DataError, "broken.png"),
        (small, ["search", TRAIN], errors.DataError, "patch of 16x16"),
        (small, ["verify", "{run}", "--set=data.benchmarks={folder}"], errors.DataError, "too small"),
        (nothing, ["search", "--set=search.stesp=1"], errors.ConfigError, "search.stesp: unknown key"),
        (nothing, ["search", "--set=search.steps=many"], errors.ConfigError, "search.steps: 'many'; expected"),
        (nothing, ["search", "--seed=-1"], errors.ConfigError, "search.seed: -1; expected"),
        (nothing, ["search", "-c", "/nowhere.toml"], errors.ConfigError, "cannot read /nowhere.toml"),
        (nothing, ["search", "-o", "{folder}/notes.txt"], errors.ConfigError, "cannot write"),
        (nothing, ["search", "--set=train.teacher=/nowhere.onnx"], errors.ConfigError, "no teacher at"),
        (nothing, ["search", "--set=budget.macs=10"], errors.InfeasibleBudget, "the cheapest needs"),
        (nothing, ["export", "/nowhere"], errors.ConfigError, "no run at /nowhere"),
        (nothing, ["show", "/nowhere"], errors.ConfigError, "no run at /nowhere"),
        (nothing, ["verify", "{folder}"], errors.StaleArtifact, "has no finished search"),
        (nothing, ["upscale", "{folder}", "x.png"], errors.StaleArtifact, "has no finished export"),
        (nothing, ["upscale", "{folder}/notes.txt", "x.png"], errors.DataError, "no image or folder at x.png"),
        (nothing, ["upscale", "{folder}/notes.txt", "{run}"], errors.DataError, "no images in"),
        (nothing, ["export"], errors.ConfigError, "Missing argument 'RUN'"),
        (nothing, ["shearch"], errors.ConfigError, "No such command 'shearch'"),
        (nothing, ["export", "{run}", "--precision", "int4"], errors.ConfigError, "'int4'"),
        (nothing, ["export", "{run}", "--engine", "tensorflow"], errors.ConfigError, "'tensorflow'"),
        (nothing, ["export", "{run}", "--precision=int8", "--calibration=/nowhere"], errors.DataError, "no folder"),
        (nothing, ["export", "{run}", "--calibration=nope"], errors.ConfigError, "nope: nothing is exported in INT8"),
        (nothing, ["search", "--set=budget.profile=nope"], errors.ConfigError, "profile without latency_ms"),
    ],
)
def test_mistake_ends_with_its_code_one_line_and_a_hint(
    small_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Path], None],
    arguments: list[str],
    error: type[errors.PipelineError],
    message: str,
) -> None:
    prepare(tmp_path)
    places = {"folder": tmp_path, "run": small_run / "run"}
    given = [argument.format_map(places) for argument in arguments]
    if given[0] in ("search", "verify") and "-c" not in given:
        given += ["-c", str(small_run / "small.toml")]
    if given[0] == "search" and "-o" not in given:
        given += ["-o", str(tmp_path / "new")]
    assert main([*given, "--json"]) == error.exit_code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert len(lines) == 2
    assert message in lines[0]
    told = last_object(captured.out)
    assert lines == [f"error: {told['error']}", f"hint: {told['hint']}"]
    assert told["exit_code"] == error.exit_code
    assert not (tmp_path / "new" / "search" / "manifest.json").exists()


def test_missing_runtime_names_its_extra(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["export", str(run), "--engine", "tensorrt"]) == errors.BackendMissing.exit_code
    shown = capsys.readouterr().err
    assert "error: tensorrt is not installed\nhint: pip install 'sr-pipeline[tensorrt]'" in shown


@pytest.mark.parametrize("command", ["export", "verify", "upscale", "show"])
def test_weights_that_were_changed_are_refused(
    run: Path, config: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "export/model.onnx" if command == "upscale" else "search/weights.safetensors"
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    arguments = {"verify": ["-c", config], "upscale": ["x.png"]}.get(command, [])
    assert main([command, str(run), *arguments]) == errors.StaleArtifact.exit_code
    assert f"{name} was changed since" in capsys.readouterr().err


def test_run_does_not_overwrite_changed_weights(run: Path, config: str) -> None:
    (run / "search" / "weights.safetensors").write_bytes(b"mine")
    assert main(["run", "-c", config, "-o", str(run)]) == errors.StaleArtifact.exit_code
    assert (run / "search" / "weights.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("runtime", "package"), [("onnxruntime", "onnxruntime"), ("openvino", "'sr-pipeline[openvino]'")]
)
def test_missing_runtime_names_what_to_install(
    run: Path, runtime: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    photo = run.parent / "photo.png"
    Image.new("RGB", (8, 8)).save(photo)
    assert main(["upscale", str(run), str(photo), "--runtime", runtime]) == errors.BackendMissing.exit_code
    assert f"pip install {package}" in capsys.readouterr().err


CLASSES: list[type[errors.PipelineError]] = [
    found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, errors.PipelineError)
]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_has_its_own_exit_code(
    error: type[errors.PipelineError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error("what is wrong", "what to do")

    monkeypatch.setitem(commands.commands, "fail", click.Command("fail", callback=fail))
    assert main(["fail"]) == error.exit_code
    assert capsys.readouterr().err == "error: what is wrong\nhint: what to do\n"
    assert sorted(found.exit_code for found in CLASSES) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_bug_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setitem(commands.commands, "fail", click.Command("fail", callback=fail))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["fail"])


def test_interrupted_search_says_how_to_go_on(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "search", interrupt)
    assert main(["search", "-c", config, "-o", str(tmp_path / "run"), "--json"]) == INTERRUPTED
    captured = capsys.readouterr()
    assert "hint: the same command goes on" in captured.err
    assert last_object(captured.out)["exit_code"] == INTERRUPTED


def test_settings_file_of_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline.toml").write_text("[search]\nstepps = 1\n")
    monkeypatch.chdir(tmp_path)
    assert main(["search"]) == errors.ConfigError.exit_code
    assert "hint: correct pipeline.toml or --set" in capsys.readouterr().err


def commands_in(document: str) -> list[list[str]]:
    """Arguments of every sr-pipeline command in the code blocks of a document."""
    blocks = re.findall(r"```\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.fullmatch(r"(?:\$ )?(?:\.venv/bin/)?sr-pipeline (.*?)(?:\s+#.*)?", line.strip()) for line in lines]
    return [shlex.split(match[1]) for match in found if match]


@pytest.mark.parametrize(
    ("document", "least"), [("README.md", {"run", "show", "upscale"}), ("profiles/README.md", {"profile"})]
)
def test_commands_of_a_readme_parse(document: str, least: set[str]) -> None:
    found = commands_in(document)
    assert least <= {arguments[0] for arguments in found}
    for name, *arguments in found:
        with click.Context(commands) as context:
            assert commands.commands[name].make_context(name, list(arguments), parent=context).params


def test_readme_lists_every_command_and_exit_code() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {*re.findall(r"^\| `sr-pipeline (\w+)", readme, re.MULTILINE)} == {*commands.commands}
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", readme, re.MULTILINE)}
    assert codes == {0, 1, INTERRUPTED, *(found.exit_code for found in CLASSES if found is not errors.PipelineError)}


def test_readme_shows_what_mistakes_look_like(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    shown = re.search(r"```\n\$ sr-pipeline (search .*)\n((?:.*\n)+?)```", (ROOT / "README.md").read_text())
    assert shown
    main(shlex.split(shown[1]))
    assert capsys.readouterr().err == shown[2]


def test_readme_has_one_sentence_for_every_file() -> None:
    """A list, because pipeline and deploy both have a measure.py."""
    listed = re.findall(r"^  (\w+\.py) +(.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    files = [path for package in ("pipeline", "deploy") for path in (ROOT / package).glob("[!_]*.py")]
    sentences = [re.split(r'\.?(?:\n|""")', path.read_text().removeprefix('"""'))[0] for path in files]
    assert sorted(listed) == sorted(zip((path.name for path in files), sentences, strict=True))


def test_a_run_is_verified_on_what_it_was_verified_on_before(
    run: Path, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = tmp_path / "silent.toml"
    silent.write_text(re.sub(r"(?m)^benchmarks = .*\n", "", Path(config).read_text()))
    assert main(["verify", str(run), "-c", str(silent)]) == 0
    assert "verify: " in (told := capsys.readouterr().err)
    assert "is current" in told


def test_a_profile_may_be_called_by_a_number(run: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads((run / "search" / "report.json").read_text())
    report["budget"] |= {"latency_ms": 5.0, "profile": "2026-01-15"}
    write_json(run / "search" / "report.json", report)
    manifest = read_manifest(run / "search")
    write_manifest(run / "search", inputs=manifest.inputs, settings=manifest.settings, outputs=[*manifest.outputs])
    assert main(["verify", str(run), "-c", config]) == 2
    assert "no device profile at profiles/2026-01-15.toml" in capsys.readouterr().err
