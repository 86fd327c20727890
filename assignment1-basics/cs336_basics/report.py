"""The project's one HTML report style: a title, sections, and in them tables, figures and text, in a single file.

The file needs nothing beside it: figures are embedded, the style is inline, and nothing is fetched from elsewhere.

    write_report("report.html", "A run", [Section("Loss", [Figure(png, "Loss against the step.")])])
"""

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from cs336_basics.atomic_file import atomic_write


@dataclass(frozen=True)
class Table:
    """A table. Cells are shown by `format_cell`; a column of nothing but numbers is set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    kind: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells does not fit a header of {len(self.header)}: {row}")

    @property
    def numeric(self) -> list[bool]:
        """For each column, whether all its cells are numbers or empty."""
        return [
            all(_is_number(row[column]) or row[column] is None for row in self.rows)
            for column in range(len(self.header))
        ]


@dataclass(frozen=True)
class Figure:
    """A picture: the bytes of a PNG file."""

    png_bytes: bytes
    caption: str = ""
    kind: ClassVar[str] = "figure"

    def __post_init__(self) -> None:
        if not self.png_bytes.startswith(b"\x89PNG"):
            raise ValueError("a figure's bytes must be a PNG file's")

    @property
    def data_uri(self) -> str:
        """The picture as an address that carries its own content."""
        return "data:image/png;base64," + base64.b64encode(self.png_bytes).decode("ascii")


@dataclass(frozen=True)
class Text:
    """Prose (an empty line starts a new paragraph), or, if `preformatted`, text whose lines and spaces are kept."""

    body: str
    preformatted: bool = False
    kind: ClassVar[str] = "text"

    @property
    def paragraphs(self) -> list[str]:
        """The prose's paragraphs."""
        return [paragraph.strip() for paragraph in self.body.split("\n\n") if paragraph.strip()]


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    title: str
    blocks: Sequence[Table | Figure | Text] = field(default_factory=list)


def format_cell(value: object) -> str:
    """A table cell's text: thousands separated in integers, four significant digits in floats."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1e3 <= abs(value) < 1e12 else f"{value:.4g}"
    return str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def render_report(title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """The report as one HTML document; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("cs336_basics", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = format_cell
    return environment.get_template("report.html").render(title=title, subtitle=subtitle, sections=sections)


def write_report(path: str | os.PathLike, title: str, sections: Sequence[Section], subtitle: str = "") -> None:
    """Write a report to `path` as one self-contained HTML file.

    Args:
        path: the file to write; it appears whole or not at all.
        title: the page's heading.
        sections: what it shows, in order; with two or more, a table of contents leads to them.
        subtitle: a line under the heading.
    """
    html = render_report(title, sections, subtitle)
    with atomic_write(path, "w") as file:
        file.write(html)
