"""Tables of training runs: parameters N, tokens D, training FLOPs C and the final loss, from arrays, JSON or CSV."""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from cs336_basics.command_line import UsageError

FLOPS_PER_PARAMETER_AND_TOKEN = 6
"""C = 6·N·D: two forward, four backward (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361, section 2.1)."""

COLUMN_NAMES = {
    "parameters": ("parameters", "params", "num_parameters", "n"),
    "tokens": ("tokens", "total_train_tokens", "train_tokens", "d"),
    "flops": ("flops", "compute_budget", "train_flops", "compute", "c"),
    "loss": ("loss", "final_loss", "val_loss", "final_val_loss"),
}
"""The names by which a file's columns are found when none is given."""


@dataclass(frozen=True)
class Runs:
    """Training runs, one entry each; every number is positive and finite.

    Attributes:
        parameters: N, the model's parameters.
        tokens: D, the tokens seen in training.
        flops: C, the floating-point operations of training.
        loss: the final loss, in nats per token.
    """

    parameters: Float[np.ndarray, " runs"]
    tokens: Float[np.ndarray, " runs"]
    flops: Float[np.ndarray, " runs"]
    loss: Float[np.ndarray, " runs"]

    def __post_init__(self) -> None:
        for field in fields(self):
            values = getattr(self, field.name)
            if values.ndim != 1 or len(values) != len(self.loss):
                raise UsageError(
                    f"{field.name} has shape {values.shape}; allowed is one number for each of {len(self.loss)} losses"
                )
            for number, value in enumerate(values, start=1):
                if not (math.isfinite(value) and value > 0):
                    raise UsageError(f"run {number} has {field.name} {value:g}; allowed are finite numbers above 0")

    @classmethod
    def of(
        cls,
        loss: ArrayLike,
        parameters: ArrayLike | None = None,
        tokens: ArrayLike | None = None,
        flops: ArrayLike | None = None,
    ) -> "Runs":
        """Runs from columns; of N, D and C at least two are given, and C = 6·N·D supplies the third.

        Raises:
            UsageError: fewer than two of the three, columns of different lengths, or a number that is not above 0.
        """
        given = {
            name: np.asarray(column, dtype=float)
            for name, column in (("parameters", parameters), ("tokens", tokens), ("flops", flops))
            if column is not None
        }
        if len(given) < 2:
            raise UsageError(
                f"runs with {' and '.join(given) or 'nothing'} besides the loss; at least two of parameters, tokens "
                "and flops are needed"
            )
        n, d, c = (given.get(name) for name in ("parameters", "tokens", "flops"))
        k = FLOPS_PER_PARAMETER_AND_TOKEN
        with np.errstate(divide="ignore", invalid="ignore"):  # what comes out of a zero is refused by name below
            n = c / (k * d) if n is None else n
            d = c / (k * n) if d is None else d
            c = k * n * d if c is None else c
        for name, column in given.items():
            if not np.all(np.isfinite(column) & (column > 0)):
                number = int(np.argmin(np.isfinite(column) & (column > 0)))
                raise UsageError(f"run {number + 1} has {name} {column[number]:g}; allowed are finite numbers above 0")
        return cls(n, d, c, np.asarray(loss, dtype=float))

    def __len__(self) -> int:
        return len(self.loss)

    def select(self, which: Bool[np.ndarray, " runs"] | Int[np.ndarray, " chosen"]) -> "Runs":
        """The runs that a mask or a list of indices picks."""
        return Runs(self.parameters[which], self.tokens[which], self.flops[which], self.loss[which])

    def budget_of_each(self, tolerance: float = 0.05) -> Int[np.ndarray, " runs"]:
        """For each run the index of its compute budget, from the smallest.

        Real runs of one budget differ a little, since steps are whole: in order of FLOPs, a new budget begins where a
        run has more than 1 + `tolerance` times the FLOPs of the one before it.
        """
        order = np.argsort(self.flops, kind="stable")
        begins = np.diff(np.log(self.flops[order]), prepend=np.log(self.flops[order][:1])) > np.log1p(tolerance)
        budget = np.empty(len(self), dtype=int)
        budget[order] = np.cumsum(begins)
        return budget

    def by_budget(self, tolerance: float = 0.05) -> "list[Runs]":
        """The runs of each compute budget, from the smallest budget; see `budget_of_each`."""
        budget = self.budget_of_each(tolerance)
        return [self.select(budget == index) for index in range(budget.max() + 1)] if len(self) else []


def read_table(path: str | os.PathLike, file_format: str = "auto") -> list[dict[str, Any]]:
    """The rows of a CSV file with a header, or of a JSON list of objects (or an object with one such list, `runs`).

    Args:
        path: the file.
        file_format: "json", "csv", or "auto": by the file's ending.

    Raises:
        UsageError: no such file, another format, or no rows.
    """
    path = Path(path)
    if file_format == "auto":
        file_format = path.suffix.lower().lstrip(".")
    if file_format not in ("json", "csv"):
        raise UsageError(f"{path} is of the format {file_format!r}; allowed are json and csv")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file)) if file_format == "csv" else json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is not a {file_format.upper()} file: {error}") from None
    if isinstance(rows, dict):
        rows = rows.get("runs")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path} holds no runs; allowed is a list of objects, or a header and at least one row")
    return rows


def column_names(rows: Sequence[Mapping[str, Any]], pattern: str) -> list[str]:
    """The columns that a pattern with `*` and `?` names, in the file's order; a plain name stands for itself."""
    if pattern in rows[0]:  # some columns have brackets or stars in their very names
        return [pattern]
    found = [name for name in rows[0] if fnmatch(name, pattern)]
    if not found:
        raise UsageError(f"there is no column {pattern!r}; the file has {', '.join(rows[0])}")
    return found


def _find(rows: Sequence[Mapping[str, Any]], role: str) -> str | None:
    by_lower_case = {name.lower(): name for name in reversed(list(rows[0]))}
    return next((by_lower_case[name] for name in COLUMN_NAMES[role] if name in by_lower_case), None)


def _numbers(rows: Sequence[Mapping[str, Any]], column: str) -> list[float]:
    if column not in rows[0]:
        raise UsageError(f"there is no column {column!r}; the file has {', '.join(rows[0])}")
    numbers = []
    for number, row in enumerate(rows, start=1):
        try:
            numbers.append(float(row[column]))
        except (KeyError, TypeError, ValueError):
            raise UsageError(f"run {number} has {column} {row.get(column)!r}; a number is needed") from None
    return numbers


def runs_from_rows(
    rows: Sequence[Mapping[str, Any]],
    *,
    parameters: str | None = None,
    tokens: str | None = None,
    flops: str | None = None,
    loss: str | None = None,
) -> Runs:
    """Runs from rows, by the columns' names; None looks for the usual names (`COLUMN_NAMES`).

    Raises:
        UsageError: a named column is missing, no loss or fewer than two of N, D and C are found, or a cell is no
            number above 0.
    """
    names = {"parameters": parameters, "tokens": tokens, "flops": flops, "loss": loss}
    found = {role: name or _find(rows, role) for role, name in names.items()}
    if found["loss"] is None:
        raise UsageError(f"there is no loss column; name one of {', '.join(rows[0])} by --loss-column")
    columns = {role: _numbers(rows, name) for role, name in found.items() if name is not None}
    if len(columns) < 3:
        raise UsageError(
            f"found only the columns {', '.join(columns)} among {', '.join(rows[0])}; besides the loss, at least two "
            "of parameters, tokens and flops are needed (--parameters-column, --tokens-column, --flops-column)"
        )
    return Runs.of(**columns)


def read_runs(path: str | os.PathLike, file_format: str = "auto", **columns: str | None) -> Runs:
    """The runs of a JSON or CSV file; the arguments are those of `read_table` and `runs_from_rows`."""
    return runs_from_rows(read_table(path, file_format), **columns)
