import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import BudgetMissed, ConfigError, ParityFailed

ROOT = Path(__file__).parents[1]
# Stands for the container: what follows the image's name goes to this checkout's sr-pipeline.
DOCKER = f"""#!/bin/bash
while [ "$1" != "$IMAGE" ]; do shift; done
shift
PYTHONPATH={ROOT} exec {sys.executable} -c 'import sys; from pipeline.cli import main; sys.exit(main())' "$@"
"""


@pytest.fixture(scope="module")
def steps() -> list[dict[str, Any]]:
    workflow = yaml.safe_load((ROOT / "deploy" / "ci-example.yml").read_text())
    found: list[dict[str, Any]] = workflow["jobs"]["network"]["steps"]
    return found


@pytest.fixture
def repository(small_run: Path, tmp_path: Path) -> Path:
    """What the workflow finds on its machine: settings, photographs, a run that is current, and docker."""
    shutil.copy(small_run / "small.toml", tmp_path / "pipeline.toml")
    shutil.copytree(small_run / "run", tmp_path / "runs" / "ci")
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "code", "parts"),
    [
        pytest.param(
            "", 0, ["# The network passes\n", "## ✅ passed: runs/ci\n", "### Quality", "| cup |"], id="passes"
        ),
        pytest.param(
            "parity_db = 500\n",
            ParityFailed.exit_code,
            ["# The network fails (exit code 7)\n", "## ❌ failed: runs/ci\n", "500 dB are asked for", "### Quality"],
            id="parity is missed",
        ),
        pytest.param(
            "parity = 90\nlatency = 5\n",
            ConfigError.exit_code,
            ["# The network fails (exit code 2)\n", "error: ", "  verify.parity: ", "  verify.latency: ", "hint: "],
            id="settings are wrong",
        ),
    ],
)
def test_verdict_is_comment_and_exit_code(
    steps: list[dict[str, Any]], repository: Path, change: str, code: int, parts: list[str]
) -> None:
    with (repository / "pipeline.toml").open("a") as file:
        file.write(change)
    comment = commented(steps, repository, code)
    assert comment.count("```") == 2
    for part in parts:
        assert part in comment


def test_search_that_misses_a_latency_budget_has_no_report_but_a_reason(
    steps: list[dict[str, Any]], repository: Path
) -> None:
    shutil.rmtree(repository / "runs")
    docker = repository / "bin" / "docker"
    lines = [
        "#!/bin/bash",
        "echo 'error: the fastest of 3 finalists takes 9 ms' >&2",
        "echo 'hint: raise it'",
        "exit 8",
    ]
    docker.write_text("\n".join(lines))
    comment = commented(steps, repository, BudgetMissed.exit_code)
    assert comment.splitlines() == [
        "# The network fails (exit code 8)",
        "```text",
        "error: the fastest of 3 finalists takes 9 ms",
        "hint: raise it",
        "```",
    ]


def commented(steps: list[dict[str, Any]], repository: Path, code: int) -> str:
    """What the workflow's script leaves as a comment, once it has ended with `code`."""
    script = next(step["run"] for step in steps if step.get("name") == "Search, export and verify")
    (repository / "summary.md").unlink(missing_ok=True)
    environment = {"PATH": f"{repository / 'bin'}:{os.environ['PATH']}", "IMAGE": "registry/sr-pipeline@digest"}
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=repository,
        env={**os.environ, **environment, "GITHUB_STEP_SUMMARY": str(repository / "summary.md")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, "")
    comment = (repository / "comment.md").read_text()
    assert comment == (repository / "summary.md").read_text()
    assert len(comment) < 65536  # what GitHub takes
    return comment


def test_comment_comes_after_a_failure_too(steps: list[dict[str, Any]]) -> None:
    (comment,) = (step for step in steps if "gh pr comment" in step.get("run", ""))
    assert "!cancelled()" in comment["if"]
    assert "--body-file comment.md" in comment["run"]
