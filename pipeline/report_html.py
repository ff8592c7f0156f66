"""A report as one HTML page that needs nothing else: style, drawings and photographs stand in it."""

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report_document import Document


def html_from_document(document: Document) -> str:
    """The page of `report.html.jinja`, which escapes all that it is not told is markup."""
    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"),
    )
    environment.filters |= {"png": _png, "svg": Markup, "words": _words}
    environment.tests["instance"] = lambda block, name: type(block).__name__ == name
    return environment.get_template("report.html.jinja").render(document=document)


def _words(text: str) -> Markup:
    """Text in which what stands between two backticks is code."""
    pieces = enumerate(text.split("`")) if text.count("`") % 2 == 0 else [(0, text)]
    return Markup("").join(Markup("<code>{}</code>").format(piece) if at % 2 else piece for at, piece in pieces)


def _png(data: bytes) -> str:
    return f"data:image/png;base64,{b64encode(data).decode()}"
