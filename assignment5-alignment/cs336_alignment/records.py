"""Reading files of records, JSON Lines above all, so that whatever is wrong with one is said with file and line."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cs336_basics.command_line import UsageError

REQUIRED = object()


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a text file (`.gz` is unpacked) that are not empty, the first being 1.

    Raises:
        UsageError: it is no UTF-8, or a damaged archive.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}:{number + 1}: no UTF-8 text ({error.reason} at byte {error.start})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UsageError(f"{path}: damaged archive ({error})") from None


def json_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSON Lines file, or of a JSON file that holds one list of them.

    Yields:
        Where each one stands, as FILE:LINE (in a list FILE:[INDEX]), and the object.

    Raises:
        UsageError: a line is no JSON object, or there are none.
    """
    count = 0
    for place, value in _json_values(path):
        if not isinstance(value, dict):
            raise UsageError(f"{place}: a {type(value).__name__} instead of a JSON object")
        count += 1
        yield place, value
    if not count:
        raise UsageError(f"{path} holds no examples")


def _json_values(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".json":
        try:
            values = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise UsageError(f"{path}: no JSON ({error})") from None
        if not isinstance(values, list):
            raise UsageError(f"{path}: a {type(values).__name__} instead of a list of JSON objects")
        yield from ((f"{path}:[{index}]", value) for index, value in enumerate(values))
        return
    for number, line in text_lines(path):
        try:
            yield f"{path}:{number}", json.loads(line)
        except ValueError as error:
            raise UsageError(f"{path}:{number}: no JSON ({error})") from None


def csv_rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows of a CSV file that are not empty, each with where it ends, as FILE:LINE.

    Raises:
        UsageError: the file is no UTF-8 or no CSV.
    """
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for row in reader:
                if row:
                    yield f"{path}:{reader.line_num}", row
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{path}:{reader.line_num + 1}: no CSV in UTF-8 ({error})") from None


def text_field(record: Mapping[str, Any], name: str, place: str, default: Any = REQUIRED) -> Any:
    """A string of a record.

    Raises:
        UsageError: it is missing and there is no default, or it is no string.
    """
    value = record.get(name, default)
    if value is REQUIRED:
        raise UsageError(f"{place}: no field {name!r}; the fields are {', '.join(map(repr, record)) or 'none'}")
    if value is not default and not isinstance(value, str):
        raise UsageError(f"{place}: the field {name!r} is {value!r}, but it must be a text")
    return value
