"""Read `rollouts.jsonl`: statistics of each step over everything, and as many whole groups as a page can hold."""

import heapq
import json
import math
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cs336_basics.command_line import UsageError

ROLLOUTS_NAME = "rollouts.jsonl"


@dataclass(frozen=True)
class LoggedRollout:
    """One line of the file; what a line lacks is None or empty.

    Attributes:
        step: the training step it was sampled in.
        prompt, response, answer: texts; the answer is the true one.
        reward, format_reward, answer_reward, advantage: finite numbers or None.
        length: of the response, in tokens.
        finish_reason: "stop", or "length" for a response that was cut off.
    """

    step: int
    prompt: str
    response: str
    answer: str
    reward: float | None
    format_reward: float | None
    answer_reward: float | None
    advantage: float | None
    length: int | None
    finish_reason: str


@dataclass
class StepTotals:
    """Sums over all rollouts of a step, to take means of; a rollout that lacks a value does not count in its mean."""

    rollouts: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, rollout: LoggedRollout) -> None:
        """Count one more."""
        self.rollouts += 1
        for name in ("reward", "format_reward", "length"):
            if (value := getattr(rollout, name)) is not None:
                self.sums[name] += value
                self.counts[name] += 1

    def mean(self, name: str) -> float | None:
        """The mean, or None where no rollout has this value."""
        return self.sums[name] / self.counts[name] if self.counts[name] else None


@dataclass
class RolloutLog:
    """What was read.

    Attributes:
        rollouts: whole groups in the order of the file.
        steps: the totals of each step, over everything.
        num_damaged: lines that hold no rollout.
    """

    rollouts: list[LoggedRollout] = field(default_factory=list)
    steps: dict[int, StepTotals] = field(default_factory=dict)
    num_damaged: int = 0

    @property
    def total(self) -> int:
        """The number of rollouts in the file, those left out included."""
        return sum(totals.rollouts for totals in self.steps.values())


def rollout_file(run: Path) -> Path:
    """The file of a run's folder, or the file itself.

    Raises:
        UsageError: there is none.
    """
    path = run / ROLLOUTS_NAME if run.is_dir() else run
    if not path.is_file():
        raise UsageError(f"there is no {path}: scripts/grpo.py, expert_iteration.py and ppo.py write one into --out")
    return path


def read_rollouts(run: Path, max_rollouts: int, progress: bool = False) -> RolloutLog:
    """Read the rollouts of a run in one pass, holding no more than `max_rollouts` of them.

    A group is all neighboring lines of one step and prompt. If the file has too many rollouts, those groups are taken
    whose checksum (CRC-32 of step and prompt) is smallest: a random choice that is always the same.

    Args:
        run: a run's folder, or a file like its `rollouts.jsonl`.
        max_rollouts: how many to keep at most.
        progress: show a progress bar.

    Raises:
        UsageError: there is no file.
    """
    path = rollout_file(run)
    log = RolloutLog()
    heap: list[tuple[int, int, list[LoggedRollout]]] = []  # the greatest checksum first, as its negative
    held = 0
    groups = groupby(_lines(path, log, progress), key=lambda rollout: (rollout.step, rollout.prompt))
    for number, ((step, prompt), group) in enumerate(groups):
        rollouts = list(group)
        totals = log.steps.setdefault(step, StepTotals())
        for rollout in rollouts:
            totals.add(rollout)
        checksum = zlib.crc32(f"{step} {prompt}".encode("utf-8", "surrogatepass"))
        heapq.heappush(heap, (-checksum, number, rollouts))
        held += len(rollouts)
        while held > max_rollouts:
            held -= len(heapq.heappop(heap)[2])
    for _, _, rollouts in sorted(heap, key=lambda entry: entry[1]):
        log.rollouts += rollouts
    return log


def _lines(path: Path, log: RolloutLog, progress: bool) -> Iterator[LoggedRollout]:
    with (
        open(path, "rb") as file,
        tqdm(total=path.stat().st_size, desc="reading", unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        for line in file:
            bar.update(len(line))
            rollout = _parse(line)
            if rollout is not None:
                yield rollout
            else:
                log.num_damaged += bool(line.strip())


def _parse(line: bytes) -> LoggedRollout | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("response"), str):
        return None
    step, length = _number(record, "step"), _number(record, "length")
    return LoggedRollout(
        step=int(step or 0),
        prompt=_text(record, "prompt"),
        response=record["response"],
        answer=_text(record, "answer"),
        reward=_number(record, "reward"),
        format_reward=_number(record, "format_reward"),
        answer_reward=_number(record, "answer_reward"),
        advantage=_number(record, "advantage"),
        length=None if length is None else int(length),
        finish_reason=_text(record, "finish_reason"),
    )


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _number(record: Mapping[str, Any], name: str) -> float | None:
    value = record.get(name)
    if not isinstance(value, int | float) or abs(value) > 2**53:
        return None
    return float(value) if math.isfinite(value) else None
