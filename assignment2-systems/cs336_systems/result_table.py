"""A table of results as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

from cs336_basics.atomic_file import atomic_write
from cs336_basics.report import Table, format_cell

Cell = str | int | float | None


@dataclass
class ResultTable:
    """Rows under a header. Markdown and LaTeX show numbers as the project's reports do; CSV keeps every digit."""

    header: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def _format(self, style: str) -> str:
        cells = [[format_cell(cell) for cell in row] for row in self.rows]
        sides = ["right" if numeric else "left" for numeric in Table(self.header, self.rows).numeric]
        # A table without rows has no columns to align.
        return tabulate(cells, self.header, style, disable_numparse=True, colalign=sides if cells else None)

    def markdown(self) -> str:
        """As GitHub shows it."""
        return self._format("github")

    def latex(self) -> str:
        r"""A `tabular` environment; it needs `\usepackage{booktabs}`."""
        return self._format("latex_booktabs")

    def csv(self) -> str:
        """Comma-separated values with a header line; a missing value is empty."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.header, *self.rows])
        return text.getvalue()

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write `name`.md, `name`.tex and `name`.csv into `folder`; each file appears whole or not at all."""
        texts = {".md": self.markdown() + "\n", ".tex": self.latex() + "\n", ".csv": self.csv()}
        paths = [folder / (name + suffix) for suffix in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            with atomic_write(path, "w") as file:
                file.write(text)
        return paths
