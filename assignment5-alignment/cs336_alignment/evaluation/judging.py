"""Judging with the model that the settings name; judgments are kept apart for each judge."""

import sys
from collections.abc import Sequence
from pathlib import Path

from cs336_alignment.evaluation.config import NO_JUDGE, AskingConfig
from cs336_alignment.evaluation.engines import EngineOnDemand
from cs336_alignment.evaluation.judge import Assignment, Judge, read_judge_prompt
from cs336_alignment.evaluation.resumable import JUDGMENTS_NAME, Row, checksum
from cs336_alignment.training.config import SMALL_MODELS


def check_judge(config: AskingConfig, assignment: Assignment) -> None:
    """Refuse a judge's prompt that cannot be used, before any work is done.

    Raises:
        UsageError: there is no such prompt, or it has wrong fields.
    """
    read_judge_prompt(config.judge_prompt or assignment.prompt, assignment.fields)


def judge_cases(
    config: AskingConfig, assignment: Assignment, cases: Sequence[dict[str, str]], folder: Path
) -> list[Row] | None:
    """Judge cases, but for those that this judge has judged before.

    Args:
        config: names the judge.
        assignment: what it is to judge.
        cases: the fields of the prompt for each.
        folder: where the judgments are kept, as `judgments_CHECKSUM.jsonl`.

    Returns:
        For each case its `verdict` and `judgment`; None if the settings say that nobody judges.
    """
    if config.judge_model == NO_JUDGE:
        return None
    if config.judge_model in SMALL_MODELS:
        print("the judge is a small model made here, which cannot judge; give --judge_model", file=sys.stderr)
    choice = config.judge
    template = read_judge_prompt(config.judge_prompt or assignment.prompt, assignment.fields)
    judge = Judge(assignment, template, choice.tokenizer, choice.fits, config.judge_max_tokens)
    determined_by = [choice.fingerprint(), choice.engine, template, config.judge_max_tokens, cases]
    path = folder / JUDGMENTS_NAME.format(checksum(determined_by)[:8])
    with EngineOnDemand(choice.open) as engine:
        return judge.judge(cases, engine, path, chunk_size=config.chunk_size, progress=not config.quiet)
