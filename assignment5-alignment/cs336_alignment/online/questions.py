"""The questions that rollouts answer: prompts as the model sees them, each with its true answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cs336_alignment.default_task.tasks import PROMPT_NAME, TASK_NAME, make_examples
from cs336_alignment.prompts import format_prompt, prompt_fields
from cs336_basics.command_line import UsageError

if TYPE_CHECKING:
    from cs336_alignment.online.config import OnlineConfig
    from cs336_alignment.online.rollout_config import RolloutConfig

QUESTION_TASKS = (TASK_NAME, "gsm8k", "math", "countdown")
"""Benchmarks whose files can be trained on. The default task's form, JSON Lines of {"prompt", "answer"} or
{"question", "answer"}, serves for other questions too."""
_OWN_PROMPTS = {TASK_NAME: PROMPT_NAME, "countdown": "countdown"}
_NUM_VALIDATION = 1024


@dataclass(frozen=True)
class Question:
    """One prompt, whole, and the true answer as the reward function wants it."""

    prompt: str
    answer: str


def prompt_name(config: "RolloutConfig") -> str:
    """The template that the settings ask for."""
    return config.prompt or _OWN_PROMPTS.get(config.task, "r1_zero")


def read_questions(path: str | Path, task: str, prompt: str) -> list[Question]:
    """The questions of a file.

    Args:
        path: in the form of the task.
        task: one of `QUESTION_TASKS`.
        prompt: the template that a question is put into; a file's own prompts stand as they are.

    Raises:
        UsageError: the file is missing or in another form, or the template does not fit the task.
    """
    from cs336_alignment.evaluation.tasks import find_task

    if not Path(path).is_file():
        raise UsageError(f"there is no file {path}; allowed are files of {task} questions")
    return [
        Question(example.fields.get("prompt") or _formatted(prompt, example.fields), str(example.gold))
        for example in find_task(task).load(Path(path))
    ]


def training_questions(config: "OnlineConfig") -> list[Question]:
    """What `data` holds; without it, questions of the default task.

    Raises:
        UsageError: as `read_questions`, or another task is without data.
    """
    if config.data is not None:
        return read_questions(config.data, config.task, prompt_name(config))
    if config.task != TASK_NAME:
        raise UsageError(f"task {config.task} needs its questions; give their file with --data")
    return _made("train", config.num_examples, config)


def held_out_questions(config: "RolloutConfig") -> list[Question]:
    """The first `eval_examples` of `val_data`; without it, of the default task, or none for other data.

    Raises:
        UsageError: as `read_questions`.
    """
    if config.val_data is not None:
        questions = read_questions(config.val_data, config.task, prompt_name(config))
    elif config.data is None:
        questions = _made("validation", config.eval_examples or _NUM_VALIDATION, config)
    else:
        questions = []
    return questions[: config.eval_examples or None]


def _made(split: str, num: int, config: "RolloutConfig") -> list[Question]:
    name = prompt_name(config)
    return [
        Question(_formatted(name, {"question": example["question"]}), example["answer"])
        for example in make_examples(split, num, config.seed)
    ]


def _formatted(prompt: str, fields: dict) -> str:
    wanted = prompt_fields(prompt)
    if missing := set(wanted) - set(fields):
        raise UsageError(f"prompt {prompt} wants the fields {', '.join(sorted(missing))}, which the questions lack")
    return format_prompt(prompt, **{name: fields[name] for name in wanted})
