"""Texts to train filters on, from the formats in which people have them."""

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import zstandard

from cs336_basics.command_line import UsageError
from cs336_data.extraction import extract_text
from cs336_data.web_archive.records import ReadCounts, read_records

FORMATS = ".warc[.gz], .wet[.gz], .jsonl[.gz|.zst], .csv, .tsv or .txt[.gz]"
_WIKITEXT_TITLE = re.compile(r"^ = ([^=].*[^=]|[^=]) = \n", re.MULTILINE)


def read_texts(path: str | os.PathLike, text_field: str = "text") -> Iterator[str]:
    """The texts of a file, by its name: one per HTML page of a WARC file, text record of a WET file, or row.

    A `.txt` file is one text, or as many as it has articles if it is in the format of WikiText.

    Args:
        path: a file.
        text_field: the name of the text in JSON lines and tables.

    Raises:
        UsageError: the format is unknown, or a row lacks the text.
        OSError: the file cannot be read.
    """
    name = Path(path).name
    if ".warc" in name or ".wet" in name:
        yield from _archived_texts(path)
    elif ".jsonl" in name or Path(name).suffix in (".csv", ".tsv"):
        yield from (text for text, _ in read_labeled(path, text_field))
    elif ".txt" in name:
        with _open_text(path) as file:
            text = file.read()
        articles = wikitext_articles(text)
        yield from articles or [text]
    else:
        raise UsageError(f"{os.fspath(path)!r} is of no known format: it must be {FORMATS}")


def read_labeled(
    path: str | os.PathLike, text_field: str = "text", label_field: str | None = None
) -> Iterator[tuple[str, str]]:
    """The texts and labels of JSON lines, of a table with a header, or of fastText's format (`__label__x text`).

    Args:
        path: a file `.jsonl`, `.csv`, `.tsv` or `.txt`, perhaps compressed.
        text_field: the name of the text's column.
        label_field: the name of the label's column; None reads no labels (they are empty).

    Raises:
        UsageError: a column is missing, or a line is broken.
        OSError: the file cannot be read.
    """
    name = Path(path).name
    fields = [text_field] + ([label_field] if label_field is not None else [])
    with _open_text(path) as file:
        if ".txt" in name:
            for number, line in enumerate(file, 1):
                label, _, text = line.strip().partition(" ")
                if not label.startswith("__label__"):
                    raise UsageError(f"{path}, line {number} begins with {label[:30]!r}; __label__NAME is needed")
                yield text, label.removeprefix("__label__")
            return
        tab = "\t" if name.endswith(".tsv") else ","
        rows = _json_rows(file, path) if ".jsonl" in name else csv.DictReader(file, delimiter=tab)
        for number, row in enumerate(rows, 1):
            for field in fields:
                if row.get(field) is None:
                    raise UsageError(f"{path}, row {number} has no {field!r}: it has {', '.join(map(str, row))}")
            yield str(row[text_field]), str(row[label_field]) if label_field is not None else ""


def wikitext_articles(text: str) -> list[str]:
    """The articles of a file of WikiText (Merity et al. 2016), spelled again as they were before tokenization."""
    places = [match.start() for match in _WIKITEXT_TITLE.finditer(text)]
    return [_untokenized(text[start:end]) for start, end in pairwise([*places, len(text)])]


_UNTOKENIZED = [
    (re.compile(r"^\s*(?:= )+(.*?)(?: =)+\s*$", re.MULTILINE), r"\1"),
    (re.compile(r" @([-,.])@ "), r"\1"),
    (re.compile(r" ('(?:t|s|re|ve|ll|d|m))\b"), r"\1"),
    (re.compile(r" ([,.;:!?)\]%])"), r"\1"),
    (re.compile(r"([(\[$£€]) "), r"\1"),
    (re.compile(r'" ([^"\n]*?) "'), r'"\1"'),
    (re.compile(r"<unk>"), "unknown"),
    (re.compile(r"[ \t]*\n\s*"), "\n"),
]


def _untokenized(text: str) -> str:
    for pattern, replacement in _UNTOKENIZED:
        text = pattern.sub(replacement, text)
    return text.strip()


def _archived_texts(path: str | os.PathLike) -> Iterator[str]:
    for record in read_records(path, counts=ReadCounts()):
        if record.type == "conversion":
            yield record.payload.decode("utf-8", "replace")
        elif (
            record.type == "response"
            and "html" in (record.content_type or "")
            and (text := extract_text(record.payload, record.charset))
        ):
            yield text


def _json_rows(file: io.TextIOBase, path: str | os.PathLike) -> Iterator[dict]:
    for number, line in enumerate(file, 1):
        try:
            row = json.loads(line)
        except ValueError:
            raise UsageError(f"{path}, line {number} is no JSON: {line[:40]!r}") from None
        if not isinstance(row, dict):
            raise UsageError(f"{path}, line {number} is no JSON object: {line[:40]!r}")
        yield row


def _open_text(path: str | os.PathLike) -> io.TextIOBase:
    if os.fspath(path).endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="")
    if os.fspath(path).endswith(".zst"):
        return zstandard.open(path, "rt", encoding="utf-8", errors="replace")
    return open(path, encoding="utf-8", errors="replace", newline="")
