"""What the graded responses of a benchmark come to: accuracy, the three categories, pass@k, breakdowns, lengths."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from cs336_alignment.evaluation.pass_at_k import mean_interval, pass_at_k
from cs336_alignment.evaluation.resumable import Row
from cs336_alignment.evaluation.runner import NO_ROOM

CATEGORIES = {
    (1.0, 1.0): "format 1, answer 1",
    (1.0, 0.0): "format 1, answer 0",
    (0.0, 0.0): "format 0, answer 0",
}
"""By format and answer reward; a right answer in the wrong form does not count."""


def category(response: Row) -> str:
    """Which of the three categories a graded response is in."""
    return CATEGORIES[response["format_reward"], response["answer_reward"]]


def summarize(rows: Sequence[Row], group_names: Sequence[str], pass_ks: Sequence[int] = (1,)) -> dict[str, Any]:
    """The figures of graded results.

    Args:
        rows: lines of `results.jsonl`.
        group_names: fields of the lines to break accuracy down by.
        pass_ks: the k of pass@k.

    Returns:
        `examples`, `samples` per example, `accuracy` (mean over examples of the share of right responses) and
        `pass_at` (by k), each with `value`, `low` and `high` of a 95 % interval over examples; `categories` (counts of
        responses), `parse_failures`, `cut_off` (responses that ran into the token limit), `no_room` (examples whose
        prompt did not fit), mean `response_tokens` of all, right and wrong ones, and `by_group`.
    """
    responses = [response for row in rows for response in row["responses"]]
    return {
        "examples": len(rows),
        "samples": len(rows[0]["responses"]) if rows else 0,
        "accuracy": share([_accuracy(row) for row in rows]),
        "pass_at": {str(k): share([_pass_at(row, k) for row in rows]) for k in pass_ks},
        "categories": {name: sum(category(one) == name for one in responses) for name in CATEGORIES.values()},
        "parse_failures": sum(one["parsed"] is None for one in responses),
        **count_endings(rows),
        "response_tokens": {
            "all": average([one["tokens"] for one in responses]),
            "right": average([one["tokens"] for one in responses if one["answer_reward"]]),
            "wrong": average([one["tokens"] for one in responses if not one["answer_reward"]]),
        },
        "by_group": {name: _breakdown(rows, name) for name in group_names},
    }


def count_endings(rows: Sequence[Row]) -> dict[str, int]:
    """How many responses were cut off, and how many examples got none for want of room."""
    reasons = [response["finish_reason"] for row in rows for response in row["responses"]]
    no_room = sum(all(one["finish_reason"] == NO_ROOM for one in row["responses"]) for row in rows)
    return {"cut_off": reasons.count("length"), "no_room": no_room}


def groups_of(rows: Sequence[Row], name: str) -> dict[str, list[Row]]:
    """The rows by the value of a field, sorted by it."""
    groups = defaultdict(list)
    for row in rows:
        groups[row.get(name, "none")].append(row)
    return dict(sorted(groups.items()))


def share(values: Sequence[float]) -> dict[str, float | None]:
    """Mean of values in [0, 1] with its 95 % interval, as `value`, `low` and `high`."""
    low, high = mean_interval(values) or (None, None)
    return {"value": average(values), "low": low, "high": high}


def average(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return sum(values) / len(values) if values else None


def _accuracy(row: Row) -> float:
    return _num_right(row) / len(row["responses"])


def _num_right(row: Row) -> int:
    return sum(response["answer_reward"] == 1 for response in row["responses"])


def _pass_at(row: Row, k: int) -> float:
    return pass_at_k(len(row["responses"]), _num_right(row), k)


def _breakdown(rows: Sequence[Row], name: str) -> dict[str, dict[str, Any]]:
    groups = groups_of(rows, name).items()
    return {value: {"examples": len(some), **share([_accuracy(row) for row in some])} for value, some in groups}
