"""The file of finished rows: which of them count for the board as it is asked for, and how one is added."""

import fcntl
import hashlib
import io
import json
import os
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from tests.bench.board import NOT_OF_OURS, Row
from tests.bench.peers import WITHOUT_SKIP

SCHEMA = 1
RESULTS = Path("tests/bench/results/search_quality.jsonl")  # from the project's root
EARLY = {"batch": 16, "patch": 48}  # of lines that do not state them
SEARCH = (
    "blocks",
    "finalists",
    "latency",
    "network",
    "optimizer",
    "search",
    "simplex",
    "space",
    "supernet",
    "training",
)

# Version -> patterns of the rows of it that this one makes too, as far as it was tried
SAME = {
    "d5f6aab47ce3": ("*",),  # the order of folders and `data.skip_broken` did not tell one search from another
    "f91f6c4a6907": ("*",),  # images smaller than a patch were left out without a word: the same weights
    # Its 3x3 skips were trained in bfloat16; these rows have another skip
    "df775b1c0ecd": ("latency/QuickSRNet-Small/ours best/seed0", "latency/ECBSR-M4C16/ours best/seed0"),
}
STARTS = (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)  # of a statement

Line = Mapping[str, Any]


def read_results(path: Path) -> list[dict[str, Any]]:
    """All lines. Ends with what to do where one is none of a board, or of another version of it."""
    found: list[dict[str, Any]] = []
    if not path.is_file():
        return found
    with path.open(encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH)  # no line is half written
        lines = stream.read().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if row["schema"] != SCHEMA:
                raise ValueError(f"schema {row['schema']}, not {SCHEMA}")
            found.append({**EARLY, **row, "name": row["name"], "kind": row["kind"], "steps": row["steps"]})
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise SystemExit(f"{path}, line {number}: {reason}; remove the line to have its row run again") from error
    return found


def known_from_results(rows: Iterable[Row], lines: Sequence[Line], settings: Line) -> dict[str, dict[str, Any]]:
    """Name -> figures of the rows that were run with their steps and with `settings`; the last line of a name counts.

    A line of other steps, images or patches is of another board, and stays in the file without a part in this one.
    """
    steps = {row.name: row.steps for row in rows}
    asked = json.loads(json.dumps(settings))
    return {
        line["name"]: dict(line)
        for line in lines
        if line["steps"] == steps.get(line["name"]) and all(line.get(name) == value for name, value in asked.items())
    }


def append(path: Path, line: Line) -> None:
    """Adds a line, all of it or nothing, while other processes add theirs."""
    text = (json.dumps(line, allow_nan=False) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # until it is closed
        before = os.fstat(stream.fileno()).st_size
        try:
            while text:
                text = text[stream.write(text) :]
        except OSError:
            stream.truncate(before)
            raise


@cache
def search_version() -> str:
    """A hash of what the modules of the search do, the same in every version of Python."""
    folder = Path(__file__).parents[2] / "pipeline"
    code = [code_of((folder / f"{name}.py").read_text(encoding="utf-8")) for name in SEARCH]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()[:12]


def code_of(source: str) -> str:
    """Python without its comments, docstrings and layout."""
    found, before = list[str](), tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.NL):
            continue
        if token.type != tokenize.STRING or before not in STARTS:  # a docstring
            found.append(token.string)
        before = token.type
    # Versions of Python cut f-strings into other tokens
    return re.sub(r",([)\]}])", r"\1", "".join("".join(found).split()))


def stale(known: Mapping[str, Line]) -> list[str]:
    """The rows that are to be run again."""
    found = {*older(known), *rounded(known), *elsewhere(known)}
    return [name for name in known if name in found]


def older(known: Mapping[str, Line]) -> list[str]:
    """The rows whose networks another version of `SEARCH` made, or one that they do not name."""
    made = {**SAME, search_version(): ("*",)}
    return [
        name
        for name, row in known.items()
        if row["kind"] not in NOT_OF_OURS
        and not any(fnmatchcase(name, pattern) for pattern in made.get(row.get("search_version", ""), ()))
    ]


def rounded(known: Mapping[str, Line]) -> list[str]:
    """The rows of peers whose image was rounded to bfloat16 in training."""
    return [
        name
        for name, row in known.items()
        if row["kind"] in ("peer pilot", "peer") and row.get("precision") == "bf16" and row["peer"] in WITHOUT_SKIP
    ]


def elsewhere(known: Mapping[str, Line]) -> list[str]:
    """The rows of equal latency that ran on another device than their peer was timed on last."""
    return [
        name
        for name, row in known.items()
        if row["kind"] == "ours at peer"
        and row["profile"] not in known.get(f"latency/{row['peer']}/time", {}).get("profiles", {}).values()
    ]
