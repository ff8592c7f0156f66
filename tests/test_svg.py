from xml.etree.ElementTree import fromstring

from pipeline.svg import add, markup, picture


def test_texts_and_attributes_are_escaped() -> None:
    svg = picture(100, 50.5, 'a "picture" <of>')
    add(svg, "text", "label", "1 < 2 & <script>", x=1 / 3, text_anchor="end")
    drawn = markup(svg)
    assert "<script>" not in drawn
    read = fromstring(drawn)
    assert (read.get("viewBox"), read.get("aria-label")) == ("0 0 100 50.5", 'a "picture" <of>')
    assert (read[0].get("x"), read[0].get("text-anchor"), read[0].get("class")) == ("0.33", "end", "label")
    assert read[0].text == "1 < 2 & <script>"
