"""What a report consists of before it has a form: articles, sections, tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline.report_facts import Crops

Tone = Literal["", "good", "bad", "faint"]
Verdict = Literal["passed", "failed", "no verdict"]


@dataclass(frozen=True, slots=True)
class Cell:
    """bar: a share from 0 to 1 that is drawn behind the text."""

    text: str
    tone: Tone = ""
    bar: float | None = None


def word(passed: bool) -> Cell:
    return Cell("passed", "good") if passed else Cell("failed", "bad")


Rows = list[Sequence[str | Cell]]


@dataclass(frozen=True, slots=True)
class Table:
    """rows: cells or their texts. left: columns of words, which stand to the left. total: whether the last row sums up.

    folded: closed until it is asked for; long: for the page alone, too long for a comment.
    """

    head: tuple[str, ...]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    left: tuple[int, ...] = (0,)
    total: bool = False
    folded: bool = False
    long: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph. tone "bad" for what a reader must not miss."""

    text: str
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines to copy into a terminal."""

    lines: list[str]


@dataclass(frozen=True, slots=True)
class Pictures:
    """SVG pictures side by side; the page alone shows them. caption: what is in all of them."""

    svgs: list[str]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Photographs:
    """Details side by side, or else the one picture (PNG) that holds them; the page alone shows them."""

    crops: list[Crops]
    picture: bytes | None = None


Block = Table | Words | Lines | Pictures | Photographs


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    blocks: list[Block]


@dataclass(frozen=True, slots=True)
class Figure:
    """A key figure: what it is, its value, and what it is to be held against."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Article:
    """All that is told of one run. problems: why the verdict is bad, and what is missing."""

    name: str
    subtitle: str
    verdict: Verdict
    figures: list[Figure]
    problems: list[str]
    sections: list[Section] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Document:
    """comparison: of several runs, before each of them. created: UTC, ISO 8601."""

    title: str
    created: str
    version: str
    comparison: list[Block]
    articles: list[Article]
