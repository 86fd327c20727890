"""The order in which a pipeline's stages work: plain lists of actions, which know nothing of tensors or processes.

- GPipe (Huang et al. 2019, https://arxiv.org/abs/1811.06965): all forward passes, then all backward passes.
- 1F1B (Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, section 2.2.1; PipeDream-Flush): stage s of p starts
  with p - s - 1 forward passes, then a backward pass follows each forward pass. The pipeline idles as long as GPipe's,
  but a stage keeps the activations of at most p - s microbatches instead of all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cs336_basics.command_line import UsageError

Kind = Literal["forward", "backward"]


class Action(NamedTuple):
    """One pass of one microbatch through a stage."""

    kind: Kind
    microbatch: int

    def __str__(self) -> str:
        return f"{self.kind[0].upper()}{self.microbatch}"


def gpipe(stage: int, num_stages: int, num_microbatches: int) -> list[Action]:
    """All forward passes, then all backward passes. Every stage has the same list."""
    return [Action(kind, index) for kind in ("forward", "backward") for index in range(num_microbatches)]


def one_forward_one_backward(stage: int, num_stages: int, num_microbatches: int) -> list[Action]:
    """Forward passes until the stages after this one are busy, then backward and forward in turn, then the rest."""
    ahead = min(num_stages - stage - 1, num_microbatches)
    actions = [Action("forward", index) for index in range(ahead)]
    for index in range(num_microbatches):
        if ahead + index < num_microbatches:
            actions.append(Action("forward", ahead + index))
        actions.append(Action("backward", index))
    return actions


def forward_only(stage: int, num_stages: int, num_microbatches: int) -> list[Action]:
    """For measuring a loss without training."""
    return [Action("forward", index) for index in range(num_microbatches)]


Schedule = Callable[[int, int, int], list[Action]]
"""f(stage, num_stages, num_microbatches): what that stage does, in order."""

SCHEDULES: dict[str, Schedule] = {"gpipe": gpipe, "1f1b": one_forward_one_backward}


def find_schedule(name: str) -> Schedule:
    """The schedule of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in SCHEDULES:
        raise UsageError(f"schedule {name!r} is unknown; allowed are {', '.join(SCHEDULES)}")
    return SCHEDULES[name]


@dataclass(frozen=True)
class Transfer:
    """One message between neighbors: activations after a forward pass, their gradients after a backward pass.

    Attributes:
        is_send: whether this stage sends it or receives it.
        action: the pass whose result it is (sent) or that needs it (received).
        peer: the other stage.
    """

    is_send: bool
    action: Action
    peer: int


def transfers(actions: Sequence[Action], stage: int, num_stages: int) -> list[list[Transfer]]:
    """The messages before each action, and after the last one: one batch each.

    A batch holds what the action before gave and what the action after needs. Started together, the two cannot block
    each other, even where a send waits for its receive and one pair's messages keep their order, as with NCCL: there,
    in 1F1B, two neighbors that send before they receive would wait for each other for ever.
    """
    batches: list[list[Transfer]] = [[] for _ in range(len(actions) + 1)]
    for place, action in enumerate(actions):
        backward = action.kind == "backward"
        source, target = (stage + 1, stage - 1) if backward else (stage - 1, stage + 1)
        if 0 <= source < num_stages:
            batches[place].append(Transfer(False, action, source))
        if 0 <= target < num_stages:
            batches[place + 1].append(Transfer(True, action, target))
    return batches


def most_in_flight(actions: Sequence[Action]) -> int:
    """The most microbatches whose activations a stage keeps at one time."""
    now = most = 0
    for action in actions:
        now += 1 if action.kind == "forward" else -1
        most = max(most, now)
    return most


def bubble_fraction(num_stages: int, num_microbatches: int) -> float:
    """The share of a step that a stage idles, for GPipe and 1F1B with equal stages: (p - 1) / (m + p - 1)."""
    return (num_stages - 1) / (num_microbatches + num_stages - 1)


class Timed(NamedTuple):
    """An action and when it runs, in any unit of time."""

    action: Action
    start: float
    stop: float


def timeline(schedule: Schedule, num_stages: int, num_microbatches: int, backward_time: float = 2) -> list[list[Timed]]:
    """When each stage does what, if messages take no time, a forward pass takes 1 and a backward pass `backward_time`.

    Raises:
        ValueError: the stages would wait for each other for ever.
    """
    waiting = [schedule(stage, num_stages, num_microbatches) for stage in range(num_stages)]
    done: list[list[Timed]] = [[] for _ in waiting]
    ends: dict[tuple[int, Action], float] = {}
    while any(waiting):
        moved = False
        for stage, actions in enumerate(waiting):
            while actions and (ready := _ready_time(actions[0], stage, num_stages, ends)) is not None:
                action = actions.pop(0)
                start = max(ready, done[stage][-1].stop if done[stage] else 0)
                stop = start + (1 if action.kind == "forward" else backward_time)
                done[stage].append(Timed(action, start, stop))
                ends[stage, action] = stop
                moved = True
        if not moved:
            raise ValueError(f"the stages wait for each other; next would be {[str(a[0]) for a in waiting if a]}")
    return done


def _ready_time(action: Action, stage: int, num_stages: int, ends: dict[tuple[int, Action], float]) -> float | None:
    """When everything the action needs is there; None while that is unknown."""
    if action.kind == "forward":
        return 0 if stage == 0 else ends.get((stage - 1, action))
    if stage == num_stages - 1:
        return ends.get((stage, Action("forward", action.microbatch)))
    return ends.get((stage + 1, action))


def chart(schedule: Schedule, num_stages: int, num_microbatches: int) -> str:
    """A text picture of `timeline`, one line per stage; a backward pass is twice as long as a forward pass."""
    width = len(str(num_microbatches - 1)) + 2
    lines = []
    for stage, row in enumerate(timeline(schedule, num_stages, num_microbatches)):
        line = ""
        for action, start, stop in row:
            line = line.ljust(int(start) * width, "·") + str(action).ljust(int(stop - start) * width)
        lines.append(f"stage {stage}  {line.rstrip()}")
    return "\n".join(lines)
