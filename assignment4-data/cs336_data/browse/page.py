"""The page itself: one HTML file that holds all it shows, fetches nothing, and runs nothing but its own script.

Documents are hostile: anyone may have written them. They stand in the page as data (JSON in which no `<` is left), the
script puts them on the screen as text, and a Content Security Policy with the script's own hash keeps the browser from
running or fetching anything else.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cs336_basics.atomic_file import atomic_write
from cs336_data.browse.excerpts import labels_of, pieces_of, spans_of, visible
from cs336_data.browse.samples import KEPT, Samples

MAX_CHARACTERS = 4_000


def write_page(path: Path, samples: Samples, title: str, max_characters: int = MAX_CHARACTERS) -> None:
    """Write the page.

    Args:
        path: the HTML file; it appears whole or not at all.
        samples: what to show.
        title: the page's heading.
        max_characters: so much is shown of a document's beginning, and as much again around highlighted places
            further on.
    """
    html = render_page(samples, title, max_characters)
    with atomic_write(path) as file:
        # What is left of lone surrogates, inside JSON's strings, becomes the escape that JSON has for them.
        file.write(html.encode("utf-8", "backslashreplace"))


def render_page(samples: Samples, title: str, max_characters: int = MAX_CHARACTERS) -> str:
    """The page as HTML."""
    names = sorted((name for name in samples.counts if name != KEPT), key=lambda name: (-samples.counts[name], name))
    documents = [_document(record, names, max_characters) for record in samples.records]
    data = {"filters": [visible(name) for name in names], "documents": documents}
    script = resources.files(__package__).joinpath("templates/browse.js").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    total = samples.counts.total()
    return environment.get_template("browse.html").render(
        title=visible(title),
        total=total,
        kept=samples.counts[KEPT],
        rows=[(visible(name), samples.counts[name], samples.counts[name] / total) for name in names],
        num_shown=len(samples.records),
        num_damaged=samples.num_damaged,
        languages=sorted({document["language"] for document in documents} - {""}),
        scores=sorted({name for document in documents for name, _, number in document["scores"] if number is not None}),
        data=Markup(json_for_html(data)),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(resources.files(__package__).joinpath("templates/browse.css").read_text(encoding="utf-8")),
    )


def json_for_html(value: Any) -> str:
    """JSON that can stand within a `<script>` element: it holds no `<`, so nothing in it ends the element."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _document(record: Mapping[str, Any], filters: list[str], max_characters: int) -> dict[str, Any]:
    """What the page's script is told of a document."""
    name = record.get("filter")
    spans = spans_of(dict(record))
    return {
        "filter": filters.index(name) if isinstance(name, str) and name != KEPT else -1,
        "url": _text(record.get("url")),
        "reason": _text(record.get("reason")),
        "language": _text(record.get("language")),
        "source": _text(record.get("source")),
        "offset": _text(record.get("offset")),
        "id": _text(record.get("id")),
        "length": len(record["text"]),
        "scores": _named(record.get("scores")),
        "masked": _named(record.get("masked")),
        "labels": labels_of(spans),
        "pieces": pieces_of(record["text"], spans, max_characters),
    }


def _text(value: Any) -> str:
    return "" if value is None else visible(str(value))


def _named(values: Any) -> list[tuple[str, str, float | None]]:
    """Names and values, each as text and, for finite numbers, as a number to sort by."""
    if not isinstance(values, dict):
        return []
    return [(visible(name), *_shown(value)) for name, value in values.items()]


def _shown(value: Any) -> tuple[str, float | None]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _text(value), None
    number = float(value) if abs(value) < 2**53 else None
    text = f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
    return text, number if number is not None and math.isfinite(number) else None
