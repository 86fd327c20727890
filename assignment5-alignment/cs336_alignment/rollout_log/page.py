"""The page itself: one HTML file that holds all it shows, fetches nothing, and runs nothing but its own script.

Responses are hostile: a model may write anything. They stand in the page as data (JSON in which no `<` is left), the
script puts them on the screen as text, and a Content Security Policy with the script's own hash keeps the browser from
running or fetching anything else.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from cs336_alignment.rollout_log.reading import LoggedRollout, RolloutLog, read_rollouts
from cs336_basics.atomic_file import atomic_write

PAGE_NAME = "rollouts.html"
MAX_ROLLOUTS = 50_000
MAX_CHARACTERS = 4_000
_CHUNK = 2_000
"""Rollouts in one JSON element; browsers parse several of moderate size faster than one huge one."""
_DIGITS = 4
"""After the decimal point of rewards and advantages."""


def write_rollout_page(
    run: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    title: str | None = None,
    max_rollouts: int = MAX_ROLLOUTS,
    max_characters: int = MAX_CHARACTERS,
    progress: bool = False,
) -> Path:
    """Write the page of a run.

    Args:
        run: a run's folder with `rollouts.jsonl`, or such a file.
        out: the page; None: `rollouts.html` in the folder.
        title: the page's heading; None: from the folder's name.
        max_rollouts: the page holds at most so many, in whole groups; the curves are always over all.
        max_characters: so much is shown of each prompt and response.
        progress: show a progress bar.

    Returns:
        The path of the page; it appears whole or not at all.

    Raises:
        UsageError: the run has no rollouts.
    """
    run = Path(run)
    folder = run if run.is_dir() else run.parent
    out = Path(out) if out is not None else folder / PAGE_NAME
    log = read_rollouts(run, max_rollouts, progress)
    html = render_page(log, title or f"Rollouts of {folder.resolve().name}", max_characters)
    with atomic_write(out) as file:
        file.write(html.encode("utf-8", "backslashreplace"))
    return out


def render_page(log: RolloutLog, title: str, max_characters: int = MAX_CHARACTERS) -> str:
    """The page as HTML."""
    prompts = {prompt: index for index, prompt in enumerate(dict.fromkeys(one.prompt for one in log.rollouts))}
    rows = [_row(rollout, prompts, max_characters) for rollout in log.rollouts]
    script = resources.files(__package__).joinpath("templates/rollouts.js").read_text(encoding="utf-8")
    steps = sorted(log.steps.items())
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("rollouts.html").render(
        title=title,
        total=log.total,
        num_shown=len(log.rollouts),
        num_damaged=log.num_damaged,
        steps=[step for step, _ in steps],
        facts=htmlsafe_json_dumps(
            {
                "prompts": [cut(prompt, max_characters) for prompt in prompts],
                "curves": {
                    name: [[step, _rounded(totals.mean(name))] for step, totals in steps]
                    for name in ("reward", "format_reward", "length")
                },
            }
        ),
        chunks=[htmlsafe_json_dumps(chunk) for chunk in batched_rows(rows)],
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup(resources.files(__package__).joinpath("templates/rollouts.css").read_text(encoding="utf-8")),
    )


def cut(text: str, max_characters: int) -> str:
    """The text, or its beginning and what is missing."""
    if len(text) <= max_characters:
        return text
    return f"{text[:max_characters]} … ({len(text) - max_characters:,} more characters)"


def batched_rows(rows: Sequence[list[Any]]) -> list[list[list[Any]]]:
    """The rows in parts of `_CHUNK`."""
    return [list(rows[start : start + _CHUNK]) for start in range(0, len(rows), _CHUNK)]


def _row(rollout: LoggedRollout, prompts: dict[str, int], max_characters: int) -> list[Any]:
    """What the page's script is told of a rollout; the order is that of `FIELDS` in the script."""
    return [
        rollout.step,
        prompts[rollout.prompt],
        cut(rollout.answer, max_characters),
        cut(rollout.response, max_characters),
        *map(_rounded, (rollout.reward, rollout.format_reward, rollout.answer_reward, rollout.advantage)),
        rollout.length,
        rollout.finish_reason,
    ]


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, _DIGITS)
