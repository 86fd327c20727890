"""Figures and examples as sections of tables and texts, shown alike on the terminal and as an HTML report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cs336_alignment.evaluation.resumable import Row
from cs336_alignment.evaluation.summary import category
from cs336_basics.report import Section, Table, Text
from cs336_systems.result_table import ResultTable

SUMMARY_NAME, REPORT_NAME = "summary.json", "report.html"
REPORT_SHOWS = 5
"""Times as many examples as the terminal."""
_INTERVAL = ("from", "to")
"""Headings of the ends of a 95 % interval."""


def accuracy_sections(summary: dict[str, Any]) -> list[Section]:
    """A graded benchmark: figures, categories, pass@k, groups; from `summarize`."""
    figures = Table(
        ("examples", "samples", "accuracy", *_INTERVAL, "no answer parsed", "cut off", "no room"),
        [(summary["examples"], summary["samples"], *_share(summary["accuracy"]), summary["parse_failures"],
          summary["cut_off"], summary["no_room"])],
    )  # fmt: skip
    counts = Table(
        ("category", "responses", "share"),
        [(name, count, count / sum(summary["categories"].values())) for name, count in summary["categories"].items()],
    )
    passes = Table(("k", "pass@k", *_INTERVAL), [(int(k), *_share(figure)) for k, figure in summary["pass_at"].items()])
    return [
        Section("Accuracy", [figures]),
        Section("Format and answer", [counts]),
        *([Section("pass@k", [passes])] if len(passes.rows) > 1 else []),
        *[
            Section(f"By {name.replace('_', ' ')}", [_group_table(name, groups, "accuracy")])
            for name, groups in summary["by_group"].items()
        ],
        throughput_section(summary["throughput"]),
    ]


def win_rate_sections(summary: dict[str, Any]) -> list[Section]:
    """AlpacaEval as judged: the win rate, what may bias it, and the data sets; from `summarize_comparisons`."""
    figures = Table(
        ("pairs", "unread", "win rate", *_INTERVAL, "length-controlled", "wins", "ties", "losses"),
        [(summary["pairs"], summary["unread"], *_share(summary["win_rate"]), summary["length_controlled_win_rate"],
          summary["wins"], summary["ties"], summary["losses"])],
    )  # fmt: skip
    bias = Table(
        ("same winner in both orders", "verdicts for the first", "characters, answer", "characters, reference"),
        [(summary["consistent"], summary["first_preferred"], *summary["characters"].values())],
    )
    return [
        Section("Win rate over the reference", [figures]),
        Section("Position and length", [bias]),
        Section("By data set", [_group_table("dataset", summary["by_group"]["dataset"], "win rate")]),
        throughput_section(summary["throughput"]),
    ]


def safety_sections(summary: dict[str, Any]) -> list[Section]:
    """Safety as judged: shares of all responses and by group; from `summarize_safety`."""
    return [
        Section("Safety", [safety_table("", {"all": summary})]),
        *[
            Section(f"By {name.replace('_', ' ')}", [safety_table(name, groups)])
            for name, groups in summary["by_group"].items()
        ],
        throughput_section(summary["throughput"]),
    ]


def safety_table(name: str, groups: dict[str, dict[str, Any]]) -> Table:
    """Figures of safety, one row per group."""
    header = (
        name.replace("_", " "), "requests", "responses", "unread", "safe", *_INTERVAL, "with an unsafe response",
        *_INTERVAL, "refusal phrase (heuristic)",
    )  # fmt: skip
    rows = [
        (value, one["requests"], one["responses"], one["unread"], *_share(one["safe"]), *_share(one["requests_unsafe"]),
         one["refusal_phrase"])
        for value, one in groups.items()
    ]  # fmt: skip
    return Table(header, rows)


def generation_sections(summary: dict[str, Any]) -> list[Section]:
    """A benchmark that was not judged: only how the responses ended, and how fast they came."""
    ends = Table(("examples", "cut off", "no room"), [(summary["examples"], summary["cut_off"], summary["no_room"])])
    return [Section("Responses, not judged", [ends]), throughput_section(summary["throughput"])]


def throughput_section(throughput: dict[str, float | None]) -> Section:
    """How fast the responses came."""
    return Section("Speed", [Table([name.replace("_", " ") for name in throughput], [list(throughput.values())])])


@dataclass(frozen=True)
class Shown:
    """A response that is shown as an example of its kind."""

    kind: str
    row: Row
    response: Row

    @property
    def parts(self) -> dict[str, str]:
        """What there is to see of it."""
        parts = {"prompt": self.row["prompt"], "response": self.response["text"]}
        if "parsed" in self.response:
            parts |= {"answer found": self.response["parsed"] or "none", "right answer": self.row["gold"]}
        if "judgment" in self.response:
            parts["judgment"] = self.response["judgment"]
        return parts


def examples_by_kind(rows: Sequence[Row], num_each: int) -> list[Shown]:
    """The first responses of each kind: category if graded, verdict if judged, else all are of one kind."""
    found: dict[str, list[Shown]] = {}
    for row in rows:
        for response in row["responses"]:
            kind = _kind(response)
            if len(found.setdefault(kind, [])) < num_each:
                found[kind].append(Shown(kind, row, response))
    return [shown for kind in sorted(found, reverse=True) for shown in found[kind]]


def _kind(response: Row) -> str:
    if "format_reward" in response:
        return category(response)
    if "verdict" not in response:
        return "not judged"
    return f"judged {response['verdict']}" if response["verdict"] else "judgment without a verdict"


def example_sections(examples: Sequence[Shown]) -> list[Section]:
    """Examples in full, a section for each kind."""
    return [
        Section(
            f"Examples: {kind}",
            [
                Text(f"{one.row['id']}\n" + "\n".join(f"[{name}] {text}" for name, text in one.parts.items()), True)
                for one in examples
                if one.kind == kind
            ],
        )
        for kind in dict.fromkeys(one.kind for one in examples)
    ]


def terminal_text(sections: Sequence[Section], examples: Sequence[Shown], width: int = 100) -> str:
    """Tables as Markdown, then a line per part of each example, cut to its last `width` characters.

    The end of a prompt is where it differs from the next one, and the end of a response is where its answer stands.
    """
    lines = []
    for section in sections:
        tables = [ResultTable(block.header, block.rows).markdown() for block in section.blocks if block.kind == "table"]
        lines += [f"\n{section.title}\n", *tables]
    for one in examples:
        lines.append(f"\nExample {one.row['id']}, {one.kind}")
        lines += [f"  {name}: {_end(text, width)}" for name, text in one.parts.items()]
    return "\n".join(lines)


def _end(text: str, width: int) -> str:
    return repr(text) if len(text) <= width else f"… {text[-width:]!r}"


def _group_table(name: str, groups: dict[str, dict[str, Any]], figure: str) -> Table:
    rows = [(value, one["examples"], *_share(one)) for value, one in groups.items()]
    return Table((name.replace("_", " "), "examples", figure, *_INTERVAL), rows)


def _share(figure: dict[str, float | None]) -> tuple[float | None, ...]:
    return figure["value"], figure["low"], figure["high"]
