"""A report as Markdown for a comment: the words and tables of the page, without its pictures."""

import re
from collections.abc import Iterable

from pipeline.report_document import Article, Block, Document, Lines, Table, Words

MARKS = {"passed": "✅ passed", "failed": "❌ failed", "no verdict": "⚪ no verdict"}


def markdown_from_document(document: Document, page: str) -> str:
    """page: name of the HTML page, which holds what is left out here."""
    lines = []
    if document.comparison:
        lines += [f"# {_plain(document.title)}", "", *_blocks(document.comparison)]
    for article in document.articles:
        lines += _article(article)
    lines.append(f"Drawings, charts, photographs and long tables stand in `{page}`.")
    lines.append(f"Written by sr-pipeline {document.version}, {document.created}.")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _article(article: Article) -> Iterable[str]:
    yield f"## {MARKS[article.verdict]}: {_plain(article.name)}"
    yield ""
    yield _plain(article.subtitle)
    yield ""
    yield from (f"- **{_words(problem)}**" for problem in article.problems)
    yield ""
    yield from _table(
        Table(("", "", ""), [(figure.name, figure.value, figure.note) for figure in article.figures], left=(0, 2))
    )
    for section in article.sections:
        lines = list(_blocks(section.blocks))
        if any(lines):
            yield from ["", f"### {section.title}", "", *lines]
    yield ""


def _blocks(blocks: Iterable[Block]) -> Iterable[str]:
    for block in blocks:
        if isinstance(block, Words):
            yield f"**{_words(block.text)}**" if block.tone == "bad" else _words(block.text)
        elif isinstance(block, Lines):
            yield from ["```sh", *block.lines, "```"]
        elif isinstance(block, Table) and not block.long:
            if block.folded:
                yield from [
                    f"<details><summary>{_plain(block.caption)}</summary>",
                    "",
                    *_table(block),
                    "",
                    "</details>",
                ]
            else:
                yield from [*([f"{_plain(block.caption)}:", ""] if block.caption else []), *_table(block)]
        else:
            continue
        yield ""


def _table(table: Table) -> Iterable[str]:
    yield f"| {' | '.join(_plain(name) for name in table.head)} |"
    yield f"|{'|'.join(':--' if index in table.left else '--:' for index in range(len(table.head)))}|"
    for index, row in enumerate(table.rows):
        last = table.total and index == len(table.rows) - 1
        texts = [_plain(value if isinstance(value, str) else value.text) for value in row]
        yield f"| {' | '.join(f'**{text}**' if text and last else text for text in texts)} |"


def _words(text: str) -> str:
    """Text in which what stands between two backticks is code."""
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        return _plain(text)
    return "".join(f"`{piece}`" if at % 2 else _plain(piece) for at, piece in enumerate(pieces))


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names of files must not become tags, links, mentions or columns."""
    escaped = re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)
    return re.sub(r"\s+", " ", escaped.replace("&", "&amp;").replace("<", "&lt;").replace("@", "@\u2060"))
