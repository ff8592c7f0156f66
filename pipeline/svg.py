"""Elements of an SVG picture as a tree, so that every text in it is escaped; the page gives the colours."""

from xml.etree.ElementTree import Element, SubElement, tostring


def picture(width: float, height: float, label: str) -> Element:
    """An empty picture of this size in pixels, which shrinks with the page. label: what it shows, read aloud."""
    size = {"viewBox": f"0 0 {width:g} {height:g}", "style": f"max-width:{width:g}px"}
    return Element("svg", {**size, "role": "img", "aria-label": label})


def add(parent: Element, tag: str, kind: str = "", text: str = "", **attributes: float | str) -> Element:
    """A new element in `parent`. kind: its class in the style sheet. `text_anchor` is written text-anchor."""
    named = {name.replace("_", "-"): _written(value) for name, value in attributes.items()}
    element = SubElement(parent, tag, {**({"class": kind} if kind else {}), **named})
    if text:
        element.text = text
    return element


def markup(svg: Element) -> str:
    """The picture as it stands in an HTML page."""
    return tostring(svg, encoding="unicode", short_empty_elements=False)


def _written(value: float | str) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"
