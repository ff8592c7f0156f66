import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from deploy.engine_facts import Shapes
from deploy.openers import CANDIDATES
from deploy.resample import downscale, upscale
from pipeline.architecture import Architecture, Cell
from pipeline.backends import Precision
from pipeline.budget import Budget, cost_from_architecture
from pipeline.data import Pair
from pipeline.errors import (
    BackendMissing,
    BudgetMissed,
    ConfigError,
    DataError,
    ParityFailed,
    PipelineError,
    StaleArtifact,
)
from pipeline.export import export
from pipeline.forms import measure
from pipeline.latencies import Progress
from pipeline.manifest import check_outputs, is_current, write_manifest
from pipeline.network import load_network
from pipeline.quantise import quantisers
from pipeline.verdict import Photograph, Thresholds, error_from_report
from pipeline.verify import FURTHER, verify, verify_work

ARCHITECTURE = Architecture("edge", 2, "rgb", 8, (Cell(("conv3", "conv1"), (6,)),))
LUMA = Architecture("edge", 3, "y", 8, (), unshuffle=2, shuffle=6, skip="conv3")
TRILEVEL = Architecture("trilevel", 4, "rgb", 8, (Cell(("dws",), ()), "up", "up"), skip="none", shuffle=1)
LENIENT = Thresholds(
    parity_db=90,
    fp16_parity_db=50,
    bf16_parity_db=25,
    int8_parity_db=20,
    mean_quality_drop_db=0.001,
    fp16_mean_quality_drop_db=0.01,
    bf16_mean_quality_drop_db=1,
    int8_mean_quality_drop_db=1,
    max_quality_drop_db=0.001,
    fp16_max_quality_drop_db=0.01,
    bf16_max_quality_drop_db=1,
    int8_max_quality_drop_db=1,
    min_gain_over_bicubic_db=-100,
)
FREE = Budget((360, 640))

FP16: tuple[Precision, ...] = ("fp16",)
INT8: tuple[Precision, ...] = ("int8",)

Run = Callable[..., Path]


def photograph(height: int, width: int, scale: int, channels: int = 3, seed: int = 0) -> Pair:
    """Smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, channels), np.uint8)
    hr = upscale(coarse, 8)[:height, :width]
    return Pair(f"noise {seed}", downscale(hr, scale), hr)


BENCHMARKS = {
    "even": [photograph(48, 40, 2), photograph(40, 56, 2, channels=1, seed=1)],
    "odd": [photograph(42, 38, 2, seed=2)],
}


@pytest.fixture
def run(searched_run: Run) -> Path:
    run = searched_run(ARCHITECTURE)
    export(run, ("fp32", "fp16"))
    return run


def check(
    run: Path,
    benchmarks: dict[str, list[Pair]] = BENCHMARKS,
    budget: Budget = FREE,
    thresholds: Thresholds = LENIENT,
    timed: bool = False,
    **others: Any,
) -> dict[str, Any]:
    """Verifies `run`; what is returned is what was written."""
    report = verify(run, benchmarks, budget, thresholds, inputs={"photographs": "ab"}, timed=timed, **others)
    written = (run / "verify" / "report.json").read_text()
    assert json.loads(written) == json.loads(json.dumps(report, allow_nan=False))
    return report


def test_report_holds_every_figure(run: Path) -> None:
    seen: list[Progress] = []
    report = check(run, on_progress=seen.append)
    assert (report["passed"], error_from_report(report)) == (True, None)
    assert report["architecture_id"] == ARCHITECTURE.id
    cost = cost_from_architecture(ARCHITECTURE, (360, 640))
    assert report["cost"] == {"macs": cost.macs, "params": cost.params, "latency_ms": None}
    assert {name: entry["photographs"] for name, entry in report["quality"].items()} == {"even": 2, "odd": 1}
    candidates = [row["candidate"] for row in report["parity"]]
    assert candidates[:3] == ["plain form", "onnxruntime fp32", "onnxruntime fp16"]
    for row in report["parity"]:
        assert row["reference"] == "training form"
        assert row["psnr_between_db"] > {"fp16": 60, "bf16": 25}.get(row["candidate"].split()[-1], 120)
        assert 0 <= row["max_abs"] < (1 if row["candidate"].endswith("bf16") else 1e-2)
    further = {f"openvino {precision}" for precision in ("fp32", "bf16", "fp16")}
    further |= {f"onnxruntime {name} {precision}" for name in ("cuda", "tensorrt") for precision in ("fp32", "fp16")}
    further |= {f"torch cuda {precision}" for precision in ("fp32", "tf32", "fp16", "bf16")}
    further |= {f"{flavour} {precision}" for flavour in ("tensorrt", "tensorrt-rtx") for precision in ("fp32", "fp16")}
    not_run = {row["candidate"] for row in report["not_run"]}
    assert {*candidates[3:]} | not_run == further
    assert not {*candidates} & not_run
    image = report["quality"]["odd"]["images"][0]
    assert (image["name"], image["lr_size"]) == ("noise 2", [21, 19])
    assert list(image["forms"]) == ["training form", *(row["candidate"] for row in report["parity"])]
    crops = {f"crops/{name}" for example in report["examples"] for name in example["files"].values()}
    assert (len(report["examples"]), len(crops)) == (3, 12)
    assert crops <= check_outputs(run / "verify").outputs.keys()
    assert [progress.done for progress in seen] == [1, 2, 3, 4]
    assert seen[-1] == Progress(4, 4, "even/noise 0 cropped to 23x19")


@pytest.mark.parametrize("architecture", [LUMA, TRILEVEL], ids=["luma", "trilevel"])
def test_other_networks_pass_too(searched_run: Run, architecture: Architecture) -> None:
    run = searched_run(architecture)
    export(run)
    scale = architecture.scale
    report = check(run, {"set": [photograph(45 * scale // 3, 60, scale), photograph(60, 60, scale, channels=1)]})
    assert error_from_report(report) is None
    assert [row["candidate"] for row in report["parity"][:2]] == ["plain form", "onnxruntime fp32"]


def test_fp16_alone_can_be_verified(searched_run: Run) -> None:
    run = searched_run(ARCHITECTURE)
    export(run, precisions=FP16)
    assert check(run)["deployed"] == "onnxruntime fp16"


def test_runtime_that_is_missing_is_listed_and_not_replaced(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("pipeline.verify.find_spec", lambda name: name != "openvino" or None)
    report = check(run)
    assert report["passed"]
    assert "openvino" not in {form.split()[0] for form in report["quality"]["odd"]["images"][0]["forms"]}
    reasons = {row["candidate"]: row["reason"] for row in report["not_run"]}
    assert reasons["tensorrt fp16"] == "the export has no such engine: --engine of `sr-pipeline export`"
    absent = "openvino is not installed: pip install 'sr-pipeline[openvino]'"
    assert reasons["openvino fp32"] == reasons["openvino bf16"] == absent

    def current() -> bool:
        return is_current(run / "verify", **verify_work(run, FREE, LENIENT, inputs={"photographs": "ab"}, timed=False))

    assert current()
    monkeypatch.setattr("pipeline.verify.find_spec", lambda _: True)  # once it is installed, it has to run
    assert not current()


def test_onnxruntime_is_never_spared(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendMissing, match="onnxruntime is not installed"):
        check(run)


def test_int8_and_engines_are_verified_where_they_can_run(searched_run: Run) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    pytest.importorskip("openvino", reason="openvino is not installed")
    run = searched_run(ARCHITECTURE)
    shapes = Shapes((1, 1, 1), (1, 24, 20), (1, 64, 64))
    frames = [pair.lr.transpose(2, 0, 1)[None].astype(np.float32) / np.float32(255) for pair in BENCHMARKS["odd"]]
    export(run, INT8, engines={"tensorrt-rtx": shapes}, frames=frames)
    report = check(run)
    parity = {row["candidate"]: row for row in report["parity"]}
    assert {"onnxruntime int8", *(["openvino int8"] if "nncf" in quantisers() else [])} <= parity.keys()
    assert 20 < parity["onnxruntime int8"]["psnr_between_db"] < 90
    not_run = {row["candidate"]: row["reason"] for row in report["not_run"]}
    if "tensorrt-rtx int8" not in parity:
        assert "NVIDIA" in not_run["tensorrt-rtx int8"]
    engine = "export/model.int8.tensorrt-rtx.engine"
    assert engine in verify_work(run, FREE, LENIENT, inputs={})["inputs"]


def test_openvino_has_no_int8_model_but_that_of_nncf(searched_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.quantise.find_spec", lambda _: None)
    run = searched_run(ARCHITECTURE)
    export(run, INT8, frames=[np.random.default_rng(0).random((1, 3, 24, 20), np.float32)])
    report = check(run)
    assert "openvino int8" not in {row["candidate"] for row in report["parity"]}
    reasons = {row["candidate"]: row["reason"] for row in report["not_run"]}
    assert reasons["openvino int8"].endswith("which nncf makes: pip install 'sr-pipeline[openvino]' and export again")


def test_engine_of_another_version_ends_the_verification(searched_run: Run) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    run = searched_run(ARCHITECTURE)
    export(run, engines={"tensorrt-rtx": Shapes((1, 24, 20), (1, 24, 20), (1, 24, 20))})
    facts = run / "export" / "model.fp32.tensorrt-rtx.engine.json"
    facts.write_text(facts.read_text().replace('"version": "1.', '"version": "0.'))
    rewrite(run, "model.onnx", lambda _: None)
    with pytest.raises(StaleArtifact, match=r"was built with tensorrt-rtx 0\..*, installed is 1\."):
        check(run)
    assert not (run / "verify" / "report.json").exists()


def test_picture_shows_the_photographs(run: Path) -> None:
    check(run)
    with Image.open(run / "verify" / "comparison.png") as picture:
        assert picture.mode == "RGB"
        assert min(picture.size) > 500


@pytest.mark.parametrize(
    ("candidate", "deployed"),
    [("onnxruntime fp16", "onnxruntime fp16"), ("abacus fp32", "onnxruntime fp32")],
    ids=["runs here", "does not"],
)
def test_quality_is_of_the_form_that_the_budget_is_meant_on(run: Path, candidate: str, deployed: str) -> None:
    judged = {"latency_ms": 1.0, "measured_ms": 1.0}
    target = SimpleNamespace(profile=SimpleNamespace(candidate=candidate), differences=(), judge=lambda *_: judged)
    report = check(run, target=target)
    image = report["quality"]["odd"]["images"][0]
    assert report["deployed"] == deployed
    assert image["psnr_y"] == image["forms"][deployed]["psnr_y"]
    assert report["examples"][0]["psnr_y"] in [
        image["forms"][deployed]["psnr_y"] for means in report["quality"].values() for image in means["images"]
    ]


@pytest.mark.parametrize(
    ("gains", "shown"),
    [((-1.0, 1.0, 2.0), ["odd/noise 2", "even/noise 1"]), ((-3.0, -1.0, -2.0), ["even/noise 1", "odd/noise 2"])],
    ids=["some gain", "none gains"],
)
def test_photographs_that_lose_are_shown_only_where_none_gains(
    run: Path, monkeypatch: pytest.MonkeyPatch, gains: tuple[float, ...], shown: list[str]
) -> None:
    def with_gain(pair: Pair, forms: dict[str, Any], name: str) -> Photograph:
        found = measure(pair, forms, name)
        gain = gains[int(pair.name.split()[1])]
        return replace(found, bicubic_psnr_y=found.forms["onnxruntime fp32"].psnr_y - gain)

    monkeypatch.setattr("pipeline.verify.measure", with_gain)
    names = [example["name"] for example in check(run)["examples"]]
    assert names[:2] == shown
    assert len(names) == (3 if max(gains) < 0 else 2)


def test_verification_is_current_until_something_changes(run: Path, searched_run: Run) -> None:
    def current(
        budget: Budget = FREE, thresholds: Thresholds = LENIENT, photographs: str = "ab", **others: bool
    ) -> bool:
        work = verify_work(run, budget, thresholds, inputs={"photographs": photographs}, timed=False, **others)
        return is_current(run / "verify", **work)

    assert not current()
    check(run)
    assert current()
    assert not current(budget=Budget((360, 640), macs=10**12))
    assert not current(thresholds=replace(LENIENT, parity_db=91))
    assert not current(photographs="cd")
    assert not current(measured=True)
    assert not current(skip_broken=True)
    searched_run(ARCHITECTURE, seed=1)
    export(run)
    assert not current()


def rewrite(run: Path, name: str, change: Callable[[onnx.ModelProto], None], *, lock: bool = True) -> None:
    """Changes a model, and with `lock` the record of its hash as well."""
    model = onnx.load(run / "export" / name)
    change(model)
    (run / "export" / name).write_bytes(model.SerializeToString())
    if lock:
        manifest = json.loads((run / "export" / "manifest.json").read_text())
        fields = {field: manifest[field] for field in ("inputs", "settings", "outputs")}
        write_manifest(run / "export", **fields)


def set_weight(value: float, name: str = "tail_weight") -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        (index,) = [index for index, weight in enumerate(model.graph.initializer) if weight.name == name]
        weights = numpy_helper.to_array(model.graph.initializer[index]).copy()
        weights[0] += value  # every input channel: a single one may be dead in a random network
        model.graph.initializer[index].CopyFrom(numpy_helper.from_array(weights, name))

    return change


@pytest.mark.parametrize("name", ["model.onnx", "model.fp16.onnx"])
def test_perturbed_weight_fails_and_is_reported(run: Path, name: str) -> None:
    rewrite(run, name, set_weight(0.05))
    report = check(run)
    error = error_from_report(report)
    form = "onnxruntime fp16" if "fp16" in name else "onnxruntime fp32"
    assert isinstance(error, ParityFailed)
    assert error.exit_code == 7
    assert f"{form} and training form agree to" in error.message
    failed = [row["candidate"] for row in report["parity"] if not row["passed"]]
    assert failed[0] == form
    same_file = {"openvino fp32", "openvino bf16", "openvino fp16"}
    assert {*failed[1:]} <= (same_file if form.endswith("fp32") else set())
    assert (run / "verify" / "comparison.png").is_file()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weight_that_is_no_number_fails(run: Path, value: float) -> None:
    rewrite(run, "model.onnx", set_weight(value))
    report = check(run)
    assert isinstance(error_from_report(report), ParityFailed)
    assert report["parity"][1]["max_abs"] is None


def test_missed_budget_fails(run: Path) -> None:
    cost = cost_from_architecture(ARCHITECTURE, (360, 640))
    assert check(run, budget=Budget((360, 640), macs=cost.macs, params=cost.params))["passed"]
    error = error_from_report(check(run, budget=Budget((360, 640), macs=cost.macs - 1)))
    assert isinstance(error, BudgetMissed)
    assert error.exit_code == 8


def test_network_that_bicubic_beats_fails(run: Path) -> None:
    error = error_from_report(check(run, thresholds=replace(LENIENT, min_gain_over_bicubic_db=0)))
    assert isinstance(error, ParityFailed)
    assert "over bicubic" in error.message


def spoil(run: Path, how: str, searched_run: Run) -> Path:
    match how:
        case "no run":
            return run / "nowhere"
        case "no export":
            (run / "export" / "manifest.json").unlink()
        case "weights changed":
            weights = run / "search" / "weights.safetensors"
            weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
        case "model changed":
            rewrite(run, "model.onnx", set_weight(1e-3), lock=False)
        case "searched again":
            searched_run(ARCHITECTURE, seed=1)
        case "foreign model":
            other = searched_run(replace(ARCHITECTURE, stem=1))
            model = export(other)["fp32"].read_bytes()
            export(searched_run(ARCHITECTURE))
            (run / "export" / "model.onnx").write_bytes(model)
            rewrite(run, "model.onnx", lambda _: None)
        case "unwritable":
            (run / "verify").write_text("in the way")
    return run


@pytest.mark.parametrize(
    ("how", "error", "message", "hint"),
    [
        ("no run", ConfigError, "no run at", "sr-pipeline search"),
        ("no export", StaleArtifact, "has no finished export", "sr-pipeline export"),
        ("weights changed", StaleArtifact, "weights.safetensors was changed since search wrote it", "search"),
        ("model changed", StaleArtifact, "model.onnx was changed since export wrote it", "sr-pipeline export"),
        ("searched again", StaleArtifact, "export is of an earlier search", "sr-pipeline export"),
        ("foreign model", StaleArtifact, "export has no model of this network", "sr-pipeline export"),
        ("unwritable", ConfigError, "cannot write", "-o"),
    ],
)
def test_spoiled_run_is_refused(
    run: Path, searched_run: Run, how: str, error: type[PipelineError], message: str, hint: str
) -> None:
    spoiled = spoil(run, how, searched_run)
    with pytest.raises(error, match=message) as caught:
        check(spoiled)
    assert hint in caught.value.hint
    assert not (run / "verify" / "report.json").exists()


@pytest.mark.parametrize(
    ("benchmarks", "message"), [({}, "no images in data.benchmarks"), ({"set": []}, "no images in set")]
)
def test_nothing_to_verify_on_is_refused(run: Path, benchmarks: dict[str, list[Pair]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        check(run, benchmarks)


def test_formula_that_differs_from_fvcore_is_a_bug(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_network(run / "export" / "plain.safetensors")
    wrong = cost_from_architecture(plain.architecture, (1, 1))
    monkeypatch.setattr("pipeline.verify.fvcore_cost", lambda *_: wrong)
    with pytest.raises(AssertionError, match="fvcore counts"):
        check(run)


def test_every_exported_form_is_timed(run: Path) -> None:
    seen: list[Progress] = []
    report = check(run, budget=Budget((36, 64)), timed=True, on_progress=seen.append)
    rows = {row["candidate"]: row for row in report["latency"]}
    assert rows.keys() == {row["candidate"] for row in report["parity"]} - {"plain form"}
    for name, row in rows.items():
        assert f"{row['runtime']} {row['precision']}" == name
        assert row["lr_size"] == [36, 64]
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["runs"] >= 5
        assert all(row[figure] > 0 for figure in ("load_ms", "first_ms", "peak_memory_mib", "model_bytes"))
        assert {layer["op"] for layer in report["layers"][name]} & {"Conv", "Convolution"}
    assert report["profile"] is None


def test_every_candidate_that_a_budget_can_be_meant_on_is_verified() -> None:
    run = {f"onnxruntime {precision}" for precision in FURTHER} | {"openvino int8"}
    run |= {name for names in FURTHER.values() for name in names}
    assert run == {" ".join(candidate) for candidate in CANDIDATES}
