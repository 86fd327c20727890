"""A benchmark from its file to its figures: ask, grade or judge, summarize, report."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cs336_alignment.evaluation.conclusions import ASSIGNMENTS, conclude
from cs336_alignment.evaluation.config import EvaluationConfig
from cs336_alignment.evaluation.engines import EngineOnDemand
from cs336_alignment.evaluation.judging import check_judge
from cs336_alignment.evaluation.presentation import (
    REPORT_NAME,
    REPORT_SHOWS,
    SUMMARY_NAME,
    example_sections,
    examples_by_kind,
    terminal_text,
)
from cs336_alignment.evaluation.prompting import Prompting, make_prompting
from cs336_alignment.evaluation.resumable import checksum, run_folder
from cs336_alignment.evaluation.runner import PromptedExample, ask, determining_settings
from cs336_alignment.evaluation.task import Example, Task, sample_path, spread
from cs336_alignment.evaluation.tasks import MMLU, find_task
from cs336_alignment.evaluation.tasks.mmlu import few_shot_examples
from cs336_alignment.rollouts.interface import SamplingParameters
from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.report import write_report


def evaluate(config: EvaluationConfig) -> dict[str, Any]:
    """Measure a model on a benchmark, going on with what is in the folder of the results.

    Writes `results.jsonl`, `summary.json` and `report.html` there, and prints the figures. AlpacaEval adds
    `alpaca_eval_outputs.json` and, once judged, `annotations.json`; SimpleSafetyTests `safety_outputs.jsonl`.

    Returns:
        What `summary.json` holds.

    Raises:
        UsageError: a setting or a file of examples is wrong, or the folder holds results of other settings.
    """
    task = find_task(config.task)
    if config.shots and task is not MMLU:
        raise UsageError(
            f"shots is {config.shots}, but shots are MMLU's alone; other tasks take a --prompt with examples"
        )
    examples = read_examples(task, config)
    prompting = make_prompting(task, config.prompt, config.wrapper, config.answer_format, config.asked.tokenizer)
    parameters = sampling_parameters(task, config, prompting)
    if task.judging is not None:
        check_judge(config, ASSIGNMENTS[task.judging])
    questions = ask_examples(examples, prompting, config)
    settings = {
        "task": task.name,
        **determining_settings(config.asked, parameters, questions),
        "answer_format": prompting.answer_format,
    }
    folder = config.folder(f"evaluate_{task.name}", checksum(settings))
    with run_folder(folder, settings, config.overwrite):
        with EngineOnDemand(config.asked.open) as engine:
            grade = task.graders[prompting.answer_format] if prompting.answer_format else None
            rows = ask(
                questions, engine, parameters, grade, folder,
                chunk_size=config.chunk_size, answer=lambda example, text: prompting.answer(text),
                progress=not config.quiet,
            )  # fmt: skip
        conclusion = conclude(task, config, rows, folder)
        summary = {**settings, "data": config.data or "our own examples", **conclusion.summary}
        with atomic_write(folder / SUMMARY_NAME, "w") as file:
            json.dump(summary, file, indent=1)
        shown = examples_by_kind(conclusion.rows, config.show * REPORT_SHOWS)
        sections = [*conclusion.sections, *example_sections(shown)]
        subtitle = f"{config.model} on {summary['data']}, {len(rows)} examples"
        write_report(folder / REPORT_NAME, f"Evaluation: {task.name}", sections, subtitle)
    print(terminal_text(conclusion.sections, examples_by_kind(conclusion.rows, config.show)))
    print(f"\nresults, summary and report: {folder}")
    return summary


def read_examples(task: Task, config: EvaluationConfig) -> list[Example]:
    """The examples that the settings ask for.

    Raises:
        UsageError: there is no such file, or it is not in the task's format.
    """
    if config.data is None:
        if not config.quiet:
            print(f"no --data given: taking examples of our own for {task.name}", file=sys.stderr)
        examples = task.own_examples()
    else:
        path = Path(config.data)
        if not path.exists():
            raise UsageError(f"data {config.data} is neither a file nor a folder")
        if path.is_dir() and task is not MMLU:
            raise UsageError(f"data {config.data} is a folder, but {task.name} is one file")
        examples = task.load(path, config.split) if task is MMLU else task.load(path)
    return spread(examples, config.max_examples)


def sampling_parameters(task: Task, config: EvaluationConfig, prompting: Prompting) -> SamplingParameters:
    """How to sample: what the settings say, else what is usual for the task.

    Raises:
        UsageError: a value is out of range, or several samples are asked for that would all be the same.
    """
    temperature = task.temperature if config.temperature is None else config.temperature
    if config.num_samples > 1 and temperature == 0:
        raise UsageError(
            f"num_samples is {config.num_samples}, but at temperature 0 all samples are the same; give --temperature"
        )
    if config.num_samples > 1 and task.judging == "pairwise":
        raise UsageError(f"num_samples is {config.num_samples}, but {task.name} compares one answer with the reference")
    return SamplingParameters(
        max_tokens=config.max_tokens or task.max_tokens,
        min_tokens=config.min_tokens,
        temperature=temperature,
        top_p=config.top_p,
        num_samples=config.num_samples,
        stop=prompting.stop,
        include_stop=prompting.keeps_stop,
        seed=config.seed,
    )


def ask_examples(examples: Sequence[Example], prompting: Prompting, config: EvaluationConfig) -> list[PromptedExample]:
    """The examples as the model sees them, worked ones of the same subject first if the settings say so.

    Raises:
        UsageError: there are not enough worked examples, or the template has wrong fields.
    """
    shots: dict[str, list[Example]] = {}
    questions = []
    for example in examples:
        subject = example.groups.get("subject", "")
        if config.shots and subject not in shots:
            folder = Path(config.data) if config.data else sample_path("mmlu")
            shots[subject] = few_shot_examples(folder, subject, config.shots)
        prompt = prompting.prompt(example, shots.get(subject, ()))
        questions.append(PromptedExample(example, prompt, config.asked.fits(prompt)))
    return questions
