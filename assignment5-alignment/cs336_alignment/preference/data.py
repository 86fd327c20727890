"""Preference data: Anthropic's HH files, lines of messages as in UltraFeedback, and plain lines of our own.

One JSON object per line, in a file that may be gzipped:

    HH             {"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": "..."}
    messages       {"chosen": [{"role": "user", "content": "..."}, {"role": "assistant", ...}], "rejected": [...]}
    own            {"prompt": "...", "chosen": "...", "rejected": "..."}

HH is the data of Bai et al. 2022 (arXiv:2204.05862). The first two hold conversations about a bare instruction: those
of one turn are kept, and the instruction is put into the Alpaca template. In the last one the prompt stands as the
model is to see it.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cs336_alignment.preference.pairs import PreferencePair, alpaca_pair
from cs336_alignment.records import json_records
from cs336_basics.command_line import UsageError

Template = Literal["auto", "alpaca_sft", "none"]

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SINGLE_TURN = ("user", "assistant")


@dataclass
class PreferenceData:
    """What was read.

    Attributes:
        pairs: those that were kept, in the files' order.
        dropped: how many were left out, by reason.
    """

    pairs: list[PreferencePair] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


class _NotUsed(Exception):
    """A conversation that gives no pair; its message is the reason."""


def read_preferences(path: str | os.PathLike, template: Template = "auto") -> PreferenceData:
    """Read a file of pairs, or all `*.jsonl` and `*.jsonl.gz` files below a folder, sorted by name.

    Where a folder holds files called `train.…`, as HH does beside `test.…`, these alone are read.

    Args:
        path: the file or folder.
        template: "auto" puts the instructions of conversations into the Alpaca template and leaves prompts of the own
            form as they are; "alpaca_sft" and "none" do one of the two to all.

    Returns:
        The pairs, each with the file it came from (below the folder), and what was dropped.

    Raises:
        UsageError: a file is damaged or of another form, or there is no pair at all.
        FileNotFoundError: there is no such file.
    """
    path, data = Path(path), PreferenceData()
    files = sorted(file for file in path.rglob("*") if file.name.endswith((".jsonl", ".jsonl.gz")))
    training_files = [file for file in files if file.name.startswith("train.")]
    for file in (training_files or files) if path.is_dir() else [path]:
        source = str(file.relative_to(path)) if path.is_dir() else file.name
        for place, row in json_records(file):
            try:
                pair, is_instruction = _pair(row, place, source)
            except _NotUsed as reason:
                data.dropped[str(reason)] += 1
                continue
            use_template = template == "alpaca_sft" or (template == "auto" and is_instruction)
            data.pairs.append(alpaca_pair(pair) if use_template else pair)
    if not data.pairs:
        dropped = ", ".join(f"{count} dropped: {reason}" for reason, count in data.dropped.items())
        raise UsageError(f"{path} holds no preference pair ({dropped or 'no line in a .jsonl or .jsonl.gz file'})")
    return data


def _pair(row: dict[str, Any], place: str, source: str) -> tuple[PreferencePair, bool]:
    """The pair of one line, and whether its prompt is a bare instruction."""
    chosen, rejected, prompt = row.get("chosen"), row.get("rejected"), row.get("prompt")
    if all(isinstance(text, str) for text in (prompt, chosen, rejected)):
        pair, is_instruction = PreferencePair(prompt, chosen, rejected, source), False
    else:
        first, second = _single_turn(_turns(chosen, place)), _single_turn(_turns(rejected, place))
        if first[0] != second[0]:
            raise _NotUsed("the human messages differ")
        pair, is_instruction = PreferencePair(first[0], first[1], second[1], source), True
    if pair.chosen == pair.rejected:
        raise _NotUsed("both responses are the same")
    return pair, is_instruction


def _turns(conversation: object, place: str) -> list[tuple[str, str]]:
    """A conversation as (role, text), from HH's one text or from a list of messages."""
    if isinstance(conversation, str):
        _, *parts = _TURN.split(conversation)
        return [(_ROLES[role], text.strip()) for role, text in zip(parts[::2], parts[1::2], strict=True)]
    try:
        return [(message["role"], message["content"].strip()) for message in conversation]
    except (TypeError, KeyError, AttributeError):
        raise UsageError(
            f'{place} is no preference pair; allowed are HH conversations {{"chosen", "rejected"}}, the same as lists '
            'of {"role", "content"}, and strings {"prompt", "chosen", "rejected"}'
        ) from None


def _single_turn(turns: list[tuple[str, str]]) -> tuple[str, str]:
    """Instruction and response of a conversation of just these two."""
    if tuple(role for role, _ in turns) != _SINGLE_TURN:
        raise _NotUsed("more than one turn" if len(turns) > len(_SINGLE_TURN) else "no human message and response")
    (_, instruction), (_, response) = turns
    return instruction, response
