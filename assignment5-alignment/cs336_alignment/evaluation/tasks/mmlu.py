"""MMLU: multiple-choice questions of 57 subjects.

Hendrycks et al. 2020, "Measuring Massive Multitask Language Understanding" (arXiv:2009.03300).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cs336_alignment.evaluation.grades import by_option_letter, by_tags
from cs336_alignment.evaluation.task import Example, Task, sample_path
from cs336_alignment.records import csv_rows
from cs336_basics.command_line import UsageError

SPLITS = ("test", "val", "dev")
LETTERS = "ABCD"


def load(path: Path, split: str = "test") -> list[Example]:
    """Read a folder of MMLU, or one of its files.

    Args:
        path: a file SUBJECT_SPLIT.csv; or a folder of such files; or the folder that the published archive unpacks
            to, where each split has a folder. Rows are a question, four options, and the letter of the right one.
        split: "test", "val" or "dev", of a folder.

    Raises:
        UsageError: there are no such files, or a row is not in that format.
    """
    examples = [
        Example(
            id=f"{subject}/{index}",
            fields={"subject": subject.replace("_", " "), "question": row[0], "options": row[1:5]},
            gold=row[5],
            groups={"subject": subject},
        )
        for subject, file in subject_files(path, split).items()
        for index, row in enumerate(_rows(file))
    ]
    if not examples:
        raise UsageError(f"{path} holds no examples")
    return examples


def subject_files(path: Path, split: str) -> dict[str, Path]:
    """The files of a split by subject, sorted.

    Raises:
        UsageError: there are none, or the file's name says no subject.
    """
    if path.is_file():
        subject, _, file_split = path.stem.rpartition("_")
        if file_split not in SPLITS or path.suffix != ".csv":
            raise UsageError(
                f"{path.name!r} names no subject: MMLU's files are SUBJECT_SPLIT.csv, SPLIT one of {SPLITS}"
            )
        return {subject: path}
    ending = f"_{split}.csv"
    folder = path / split if (path / split).is_dir() else path
    found = {file.name.removesuffix(ending): file for file in sorted(folder.glob("*" + ending))}
    if not found:
        raise UsageError(f"{path} holds no MMLU files: there is no *{ending} in it, nor in a folder {split!r} of it")
    return found


def few_shot_examples(path: Path, subject: str, num_shots: int) -> list[Example]:
    """The first examples of a subject's dev split, which is there for this.

    Args:
        path: as for `load`; of a file, the folder it lies in.
        subject: as in the files' names.
        num_shots: how many.

    Raises:
        UsageError: there are fewer.
    """
    folder = path.parent if path.is_file() else path
    if folder.name in SPLITS and not any(folder.glob("*_dev.csv")):
        folder = folder.parent
    file = subject_files(folder, "dev").get(subject)
    shots = load(file)[:num_shots] if file else []
    if len(shots) < num_shots:
        raise UsageError(f"{num_shots} shots asked for, but the dev split of {subject!r} in {folder} has {len(shots)}")
    return shots


def _rows(path: Path) -> Iterator[list[str]]:
    for place, row in csv_rows(path):
        if len(row) != 6:
            raise UsageError(f"{place}: {len(row)} columns instead of 6: a question, four options, a letter")
        if row[5] not in LETTERS or len(row[5]) != 1:
            raise UsageError(f"{place}: the answer is {row[5]!r}; allowed are A, B, C and D")
        yield row


MMLU = Task(
    name="mmlu",
    load=load,
    own_examples=partial(load, sample_path("mmlu")),
    prompt="mmlu",
    groups=("subject",),
    wrapper="zero_shot_system_prompt",
    graders={"option_letter": by_option_letter, "r1_zero": by_tags()},
    default_format="option_letter",
)
