"""The report stage: one HTML page of one or several runs, and its Markdown twin for comments."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.manifest import atomic_path
from pipeline.peer_figures import peers_from_file
from pipeline.report_document import Document
from pipeline.report_facts import facts_from_files
from pipeline.report_html import html_from_document
from pipeline.report_markdown import markdown_from_document
from pipeline.report_sections import article_from_facts, comparison


def report(runs: Sequence[Path], page: Path | None = None, peers: Path | None = None) -> dict[str, Any]:
    """Writes the page, and beside it the same name with .md, and returns both paths and the verdict of each run.

    page: by default RUN/report/report.html; of several runs, report.html in the folder that holds them all.
    peers: a file as `pipeline.peer_figures` describes it; without one, published figures are drawn.
    Raises ConfigError where there is no run, peers are malformed or nothing can be written; StaleArtifact where no
    stage of a run is finished.
    """
    target = page or default_page(runs)
    if target.suffix not in (".html", ".htm"):
        raise ConfigError(f"{target} is no name of a page", "name a file that ends in .html with -o")
    others = None if peers is None else peers_from_file(peers)
    told = [facts_from_files(run) for run in dict.fromkeys(runs)]
    several = len(told) > 1
    document = Document(
        title=f"{len(told)} runs" if several else f"{told[0].run}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=__version__,
        comparison=comparison(told, others) if several else [],
        articles=[article_from_facts(facts, others) for facts in told],
    )
    twin = target.with_suffix(".md")
    for path, text in ((target, html_from_document(document)), (twin, markdown_from_document(document, target.name))):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return {
        "runs": [{"run": facts.run, "passed": facts.passed, "missing": facts.missing} for facts in told],
        "written": [str(target), str(twin)],
    }


def default_page(runs: Sequence[Path]) -> Path:
    """RUN/report/report.html; of several runs, report.html in their parent. Raises ConfigError where that differs."""
    if len({*runs}) == 1:
        return runs[0] / "report" / "report.html"
    if len({run.resolve().parent for run in runs}) > 1:
        raise ConfigError("the runs are in several folders", "name the page to write with -o FILE.html")
    first = runs[0] if runs[0].name not in ("", "..") else runs[0].resolve()
    return first.parent / "report.html"
