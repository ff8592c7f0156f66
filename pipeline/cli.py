"""The command line: commands, their options, and the exit code that every error ends with."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from pipeline import __version__
from pipeline.config import Settings, load_settings
from pipeline.errors import ConfigError, PipelineError

if TYPE_CHECKING:
    from deploy.engine_facts import Flavour
    from pipeline.backends import Precision


class LrSize(click.ParamType[tuple[int, int]]):
    """(height, width) of "360x640"."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        height, times, width = str(value).partition("x")
        if not (times and height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            self.fail(f"{value!r} is no height x width; expected 360x640", param, ctx)
        return int(height), int(width)


DEFAULT_CONFIG = Path("pipeline.toml")
INTERRUPTED = 130


class Failed(Exception):
    """A bad verdict on a finished piece of work: the error it ends with, and what --json shows beside it."""

    def __init__(self, error: PipelineError, result: dict[str, Any]) -> None:
        super().__init__(error.message)
        self.error, self.result = error, result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, that of the error's class, or 130 after an interrupt.

    A user's mistake is a line and a hint on stderr, and with --json an object on stdout; a bug is a traceback.
    """
    logging.basicConfig(format="warning: %(message)s")
    given = list(sys.argv[1:] if arguments is None else arguments)
    result: dict[str, Any] = {}
    try:
        commands.main(given or ["--help"], prog_name="sr-pipeline", standalone_mode=False)
        return 0
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        failure: PipelineError = ConfigError(
            error.format_message(), f"see {context.command_path if context else 'sr-pipeline'} --help"
        )
        code = failure.exit_code
    except PipelineError as error:
        failure, code = error, error.exit_code
    except Failed as failed:
        failure, code, result = failed.error, failed.error.exit_code, failed.result
    except (click.Abort, KeyboardInterrupt):
        failure = PipelineError("interrupted", "the same command goes on from what is finished and from checkpoints")
        code = INTERRUPTED
    click.echo(f"error: {failure.message}", err=True)
    if failure.hint:
        click.echo(f"hint: {failure.hint}", err=True)
    if "--json" in given:
        _print_json({**result, "error": failure.message, "hint": failure.hint, "exit_code": code})
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="sr-pipeline")
def commands() -> None:
    """Search, fold, export and verify super-resolution networks under a device budget."""


config_option = click.option(
    "-c", "--config", type=Path, metavar="FILE", help="Settings file; pipeline.toml where there is one."
)
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Change one setting; may be repeated."
)
seed_option = click.option("--seed", type=int, metavar="N", help="Same as --set search.seed=N.")
run_option = click.option("-o", "--output", type=Path, metavar="RUN", help="Run directory instead of runs/<run.name>.")
run_argument = click.argument("run", type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line on stdout.")


@commands.command()
@config_option
@set_option
@seed_option
@run_option
@json_option
def search(
    config: Path | None, overrides: tuple[str, ...], seed: int | None, output: Path | None, as_json: bool
) -> None:
    """Search and train a network within the budget.

    An interrupted search goes on from its checkpoint when the same command is given again.
    """
    settings = _settings(config, overrides, seed)
    run = output or Path("runs") / settings.run.name
    from pipeline import stages

    stages.search_run(run, settings)
    _tell(run, as_json)


@commands.command()
@run_argument
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["fp32", "fp16", "int8"]),
    help="May be repeated.  [default: fp32]",
)
@click.option(
    "--engine",
    "flavours",
    multiple=True,
    type=click.Choice(["tensorrt", "tensorrt-rtx"]),
    help="Build an engine of each model as well; tensorrt builds for the GPU of this machine.",
)
@click.option(
    "--calibration",
    multiple=True,
    metavar="FOLDER",
    help="Photographs that int8 ranges are measured on; those that RUN was trained on if not given.",
)
@click.option(
    "--timing-cache",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What tensorrt measured, for faster builds; read and written.  [default: RUN/export/timing.cache]",
)
@json_option
def export(
    run: Path,
    precisions: "tuple[Precision, ...]",
    flavours: "tuple[Flavour, ...]",
    calibration: tuple[str, ...],
    timing_cache: Path | None,
    as_json: bool,
) -> None:
    """Fold the network of RUN and write it as ONNX.

    The files are RUN/export/model.onnx and, with --precision fp16 or int8, model.fp16.onnx and model.int8.onnx. INT8
    has two more, model.int8.openvino.onnx and model.int8.tensorrt.onnx. What RUN was exported in before is kept.
    """
    from pipeline import stages

    stages.export_run(run, {*precisions} or {"fp32"}, flavours, calibration, timing_cache)
    _tell(run, as_json)


@commands.command()
@run_argument
@config_option
@set_option
@json_option
def verify(run: Path, config: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Measure RUN on the benchmarks and give the verdict.

    Every form of the network is compared: training form, plain form and the exported models. The budget is the one
    that RUN was searched for, and the benchmarks, unless the settings name others, are those that it was verified on
    before; --set budget.macs=... and --set data.benchmarks=... ask for others.
    """
    from pipeline.command_lines import toml_value
    from pipeline.runs import benchmarks_of_run, budget_of_run

    promised = [f"budget.{name}={toml_value(bound)}" for name, bound in asdict(budget_of_run(run)).items()]
    if _settings(config, []).data.benchmarks == load_settings().data.benchmarks and (folders := benchmarks_of_run(run)):
        promised.append(f"data.benchmarks={toml_value(folders)}")
    settings = _settings(config, [*promised, *overrides])
    from pipeline import stages

    stages.verify_run(run, settings)
    _tell(run, as_json, judge=True)


@commands.command("run")
@config_option
@set_option
@seed_option
@run_option
@json_option
def run_all(
    config: Path | None, overrides: tuple[str, ...], seed: int | None, output: Path | None, as_json: bool
) -> None:
    """Search, export and verify; skip what is current.

    The network is exported in fp32 and fp16, and in INT8 where the budget's profile is of INT8.
    """
    settings = _settings(config, overrides, seed)
    run = output or Path("runs") / settings.run.name
    from pipeline import stages

    stages.search_run(run, settings)
    stages.export_run(run, stages.precisions_of(settings))
    stages.verify_run(run, settings)
    _tell(run, as_json, judge=True)


@commands.command()
@click.argument("name", required=False)
@click.option(
    "--runtime",
    type=click.Choice(["onnxruntime", "onnxruntime cuda", "onnxruntime tensorrt", "openvino"]),
    default="onnxruntime",
    show_default=True,
)
@click.option("--precision", type=click.Choice(["fp32", "fp16", "bf16", "int8"]), default="fp32", show_default=True)
@click.option("--lr-size", type=LrSize(), metavar="HxW", help="LR frame to time; that of the settings if not given.")
@click.option("--threads", type=click.IntRange(1), help="Of one operator; one for each core if not given.")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), default=8, show_default=True, help="Time limit, about."
)
@click.option(
    "--bundle",
    type=Path,
    metavar="ZIP",
    help="Measure nothing; write what another device measures itself with, with neither torch nor sr-pipeline.",
)
@click.option(
    "--import",
    "result",
    type=Path,
    metavar="JSON",
    help="Measure nothing; take what another device found. With --bundle, it has to be the result of that one.",
)
@click.option("--force", is_flag=True, help="Replace a profile of this name.")
@config_option
@set_option
@json_option
def profile(
    name: str | None,
    runtime: str,
    precision: str,
    lr_size: tuple[int, int] | None,
    threads: int | None,
    minutes: float,
    bundle: Path | None,
    result: Path | None,
    force: bool,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure how long networks take on a device.

    Times networks of the edge space, of the scale and the colour of the settings, and writes profiles/NAME.toml, which
    a latency budget names. Leave the machine alone meanwhile.
    """
    context = click.get_current_context()

    def is_given(option: str) -> bool:
        return context.get_parameter_source(option) is ParameterSource.COMMANDLINE

    if result is not None:
        pairs = (("--minutes", "minutes"), ("--set", "overrides"), ("-c", "config"))
        if idle := [word for word, option in pairs if is_given(option)]:
            raise ConfigError(f"{', '.join(idle)}: not for --import, which takes what was measured", "leave it out")
    settings = _settings(config, overrides)
    from pipeline import profiling
    from pipeline.terminal import console, profile_table

    if result is None and bundle is not None:
        if idle := [word for word, value in (("NAME", name), ("--threads", threads), ("--force", force)) if value]:
            raise ConfigError(
                f"{', '.join(idle)}: not for --bundle alone, which writes networks and no profile",
                "give threads to `python -m deploy.measure` on the device, and NAME beside --import",
            )
        task = profiling.task_from_settings(settings, lr_size)
        profiling.profile_bundle(bundle, task, runtime, precision, minutes)
        click.echo(bundle, err=as_json)
        if as_json:
            _print_json({"bundle": str(bundle)})
        return
    if result is None:
        task = profiling.task_from_settings(settings, lr_size)
        path, made = profiling.profile_here(name, task, runtime, precision, threads, minutes, force=force)
    else:
        given = {"runtime": runtime, "precision": precision, "lr_size": lr_size, "threads": threads}
        asked = {key: value for key, value in given.items() if is_given(key)}
        path, made = profiling.profile_import(name, result, bundle, asked, force=force)
    console(stderr=as_json).print(profile_table(made, path))
    if as_json:
        _print_json({"profile": str(path), "name": made.name, "candidate": made.candidate, "networks": len(made.rows)})


@commands.command()
@run_argument
@json_option
def show(run: Path, as_json: bool) -> None:
    """Say what RUN is: architecture, cost, stages, verdict."""
    _tell(run, as_json)


@commands.command()
@click.argument("runs", nargs=-1, required=True, type=Path, metavar="RUN [RUN ...]")
@click.option(
    "-o", "--output", type=Path, metavar="FILE.html", help="Page to write; RUN/report/report.html if not given."
)
@click.option(
    "--peers",
    type=Path,
    metavar="FILE",
    help="JSON list of networks to draw beside; published figures at x2 if not given.",
)
@json_option
def report(runs: tuple[Path, ...], output: Path | None, peers: Path | None, as_json: bool) -> None:
    """Write what is known of each RUN as one HTML page, and as Markdown beside it.

    Verdict, latency, quality, layers, search, architecture, photographs, and how all was measured. The page needs no
    network. Several runs are compared first.
    """
    from pipeline.report import report as write_report

    told = write_report(runs, output, peers)
    for path in told["written"]:
        click.echo(path, err=as_json)
    if as_json:
        _print_json(told)


@commands.command()
@click.argument("model", type=Path)
@click.argument("source", type=Path)
@click.option("-o", "--output", type=Path, metavar="PATH", help="File or folder to write; beside SOURCE if not given.")
@click.option(
    "--runtime",
    type=click.Choice(["onnxruntime", "onnxruntime cuda", "onnxruntime tensorrt", "openvino", "tensorrt"]),
    default="onnxruntime",
    show_default=True,
    help="What runs the model, and nothing in its place; tensorrt runs an engine.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "bf16", "int8"]),
    help="What it computes in; that of the file if not given, and of a run the most precise.",
)
@json_option
def upscale(model: Path, source: Path, output: Path | None, runtime: str, precision: str | None, as_json: bool) -> None:
    """Enlarge images with a run or a model.

    SOURCE is an image or a folder of images, MODEL a run directory, an .onnx file or an engine.
    """
    from pipeline.enlarge import enlarge, model_from_path

    chosen = model_from_path(model, runtime, precision)
    written = enlarge(chosen, source, output, lambda target: click.echo(target, err=as_json), runtime, precision)
    if as_json:
        _print_json({"model": str(chosen), "written": [str(path) for path in written]})


def _settings(config: Path | None, overrides: Sequence[str], seed: int | None = None) -> Settings:
    found = DEFAULT_CONFIG if config is None and DEFAULT_CONFIG.is_file() else config
    return load_settings(found, [*overrides, *([] if seed is None else [f"search.seed={seed}"])])


def _tell(run: Path, as_json: bool, *, judge: bool = False) -> None:
    """Shows what `run` is. With `judge`, raises Failed where its verdict is bad."""
    from pipeline.runs import facts_from_run
    from pipeline.terminal import console, run_table

    facts = facts_from_run(run)
    console(stderr=as_json).print(run_table(facts))
    if judge and not facts["passed"]:
        from pipeline.verdict import error_from_report

        error = error_from_report(facts)
        assert error is not None
        raise Failed(error, facts)
    if as_json:
        _print_json(facts)


def _print_json(value: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(value, allow_nan=False))
