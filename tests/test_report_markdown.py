import pytest

from pipeline.report_document import (
    Article,
    Block,
    Cell,
    Document,
    Lines,
    Photographs,
    Pictures,
    Section,
    Table,
    Verdict,
    Words,
)
from pipeline.report_markdown import markdown_from_document


def markdown(*blocks: Block, verdict: Verdict = "passed", problems: tuple[str, ...] = ()) -> str:
    article = Article("runs/a_b", "a network", verdict, [], [*problems], [Section("Section", [*blocks])])
    return markdown_from_document(Document("runs/a_b", "2026-01-01", "0.1", [], [article]), "report.html")


@pytest.mark.parametrize(
    ("verdict", "heading"),
    [("passed", "## ✅ passed:"), ("failed", "## ❌ failed:"), ("no verdict", "## ⚪ no verdict:")],
)
def test_verdict_comes_first(verdict: Verdict, heading: str) -> None:
    lines = markdown(verdict=verdict, problems=("run `sr-pipeline verify a_b` on *x*",)).splitlines()
    assert lines[0] == rf"{heading} runs/a\_b"
    assert r"- **run `sr-pipeline verify a_b` on \*x\***" in lines


def test_table() -> None:
    table = Table(("name", "dB"), [("a|b", Cell("31.5", "good")), ("all", "32")], "caption", total=True)
    expected = "caption:\n\n| name | dB |\n|:--|--:|\n| a\\|b | 31.5 |\n| **all** | **32** |\n"
    assert expected in markdown(table)


def test_folded_table_is_closed_and_a_long_one_is_left_out() -> None:
    rows = [("a", "1")]
    assert "<details><summary>more</summary>\n\n| x | y |" in markdown(Table(("x", "y"), rows, "more", folded=True))
    assert "more" not in markdown(Table(("x", "y"), rows, "more", folded=True, long=True))


def test_lines_are_code_and_pictures_are_left_out() -> None:
    text = markdown(Lines(["sr-pipeline run *"]), Pictures(["<svg></svg>"], "a picture"), Photographs([], b"png"))
    assert "```sh\nsr-pipeline run *\n```" in text
    assert "svg" not in text
    assert "a picture" not in text
    assert "`report.html`" in text


def test_section_of_pictures_alone_has_no_heading() -> None:
    assert "Section" not in markdown(Pictures(["<svg></svg>"]))
    assert "### Section" in markdown(Words("text"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>", "&lt;b>"),
        ("a & b", "a &amp; b"),
        ("[x](y)", r"\[x\](y)"),
        ("one ` alone", r"one \` alone"),
        ("#1 ~~x~~ $y$", r"\#1 \~\~x\~\~ \$y\$"),
        ("two\nlines", "two lines"),
        ("@team", "@\u2060team"),
    ],
)
def test_words_are_shown_as_they_are(text: str, shown: str) -> None:
    assert f"\n{shown}\n" in markdown(Words(text))
