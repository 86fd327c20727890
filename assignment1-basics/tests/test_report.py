"""The HTML report: self-contained, escaped, well-formed."""

import base64
import io
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure as Plot

from cs336_basics.report import Figure, Section, Table, Text, format_cell, write_report


def _png():
    plot = Plot(figsize=(1, 1))
    plot.subplots().plot([1, 2])
    file = io.BytesIO()
    plot.savefig(file, format="png")
    return file.getvalue()


class _Page(HTMLParser):
    """Collects the text, the tags and every address of a page, and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.addresses, self.tags = [], "", [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _read(path):
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_everything_is_in_one_file(tmp_path):
    png = _png()
    sections = [
        Section("Loss", [Figure(png, "Loss against the step."), Text("First.\n\nSecond.")]),
        Section("Setup", [Table(["name", "value"], [["d_model", 12345], ["lr", 0.00123456], ["tied", True]], "All.")]),
    ]
    write_report(tmp_path / "deep" / "report.html", "A run", sections, subtitle="on a laptop")
    page = _read(tmp_path / "deep" / "report.html")
    images = [address for address in page.addresses if address.startswith("data:image/png;base64,")]
    assert base64.b64decode(images[0].split(",")[1]) == png
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "script" not in page.tags
    for shown in ("A run", "on a laptop", "Loss against the step.", "Second.", "12,345", "0.001235", "yes", "All."):
        assert shown in page.text
    assert page.tags.count("tr") == 4


def test_texts_cannot_become_markup(tmp_path):
    evil = "<script>alert('x')</script> & \"quotes\""
    sections = [Section(evil, [Text(evil), Text(evil, preformatted=True), Table([evil], [[evil]], evil)])]
    write_report(tmp_path / "report.html", evil, sections, evil)
    page = _read(tmp_path / "report.html")
    assert "script" not in page.tags
    assert page.text.count(evil) == 9


def test_preformatted_text_keeps_its_lines(tmp_path):
    write_report(tmp_path / "report.html", "t", [Section("s", [Text("a\n   b\n\nc", preformatted=True)])])
    assert "<pre>a\n   b\n\nc</pre>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_columns_of_numbers_are_set_to_the_right():
    table = Table(["name", "loss", "mixed"], [["a", 1.5, 1], ["b", None, "x"]])
    assert table.numeric == [False, True, False]
    assert [format_cell(value) for value in (123456, 1234.6, 0.00012345, None, False, "a")] == [
        "123,456", "1,235", "0.0001234", "–", "no", "a",
    ]  # fmt: skip


def test_wrong_content_is_refused():
    with pytest.raises(ValueError, match="PNG"):
        Figure(b"GIF89a")
    with pytest.raises(ValueError, match="2 cells does not fit a header of 1"):
        Table(["one"], [["a", "b"]])
