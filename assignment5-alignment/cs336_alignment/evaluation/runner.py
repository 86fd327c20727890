"""Ask the model, grade what it says, and keep every response: `results.jsonl`, one line per example.

A line: `id`, the groups the example belongs to, `prompt`, `gold`, what else the benchmark's file says, and
`responses`, each with `text`, `parsed`, `format_reward`, `answer_reward`, `reward`, `tokens` and `finish_reason`
("stop", "length", or "prompt" where the prompt left no room in the model's context).
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cs336_alignment.evaluation.engines import EngineChoice, EngineOnDemand
from cs336_alignment.evaluation.resumable import RESULTS_NAME, TIMING_NAME, Row, checksum, run_in_chunks
from cs336_alignment.evaluation.task import Example, Grade
from cs336_alignment.rollouts.interface import Rollout, RolloutEngine, SamplingParameters

NO_ROOM = "prompt"


@dataclass(frozen=True)
class PromptedExample:
    """An example as the model sees it.

    Attributes:
        example: what is asked.
        prompt: the text the model continues.
        fits: whether the model's context has room for the prompt and an answer; one that has not gets empty responses.
    """

    example: Example
    prompt: str
    fits: bool = True


def determining_settings(
    choice: EngineChoice, parameters: SamplingParameters, questions: Sequence[PromptedExample]
) -> dict[str, Any]:
    """What the results of `ask` depend on, as JSON values."""
    return {
        **choice.fingerprint(),
        "engine": choice.engine,
        **asdict(parameters),
        "stop": list(parameters.stop),
        "questions": checksum([[asdict(one.example), one.prompt] for one in questions]),
    }


def ask(
    questions: Sequence[PromptedExample],
    engine: EngineOnDemand,
    parameters: SamplingParameters,
    grade: Callable[[Example, str], Grade] | None,
    folder: Path,
    *,
    chunk_size: int,
    answer: Callable[[Example, str], str] = lambda example, text: text,
    progress: bool = True,
) -> list[Row]:
    """Sample responses to all questions, but for those that an earlier call has asked.

    Args:
        questions: what to ask.
        engine: opened only if there is something to ask.
        parameters: how to sample, with a seed.
        grade: from example and answer to its grade; None to leave that to a judge.
        folder: where the results are kept.
        chunk_size: questions between two savings.
        answer: from example and text to what counts as the response.
        progress: show a progress bar.

    Returns:
        The lines of the file.
    """

    def one_chunk(chunk: Sequence[PromptedExample]) -> list[Row]:
        prompts = [question.prompt for question in chunk if question.fits]
        groups = iter(_timed(engine.opened(), prompts, parameters, folder / TIMING_NAME) if prompts else [])
        answered = [next(groups) if question.fits else None for question in chunk]
        return [row(question, rollouts) for question, rollouts in zip(chunk, answered, strict=True)]

    def row(question: PromptedExample, rollouts: list[Rollout] | None) -> Row:
        example = question.example
        responses = (
            [_response("", 0, NO_ROOM)] * parameters.num_samples
            if rollouts is None
            else [_response(answer(example, one.text), len(one.token_ids), one.finish_reason) for one in rollouts]
        )
        if grade is not None:
            responses = [each | _rewards(grade(example, each["text"])) for each in responses]
        return {
            "id": example.id,
            **example.groups,
            "prompt": question.prompt,
            "gold": example.gold,
            **example.record,
            "responses": responses,
        }

    without_room = sum(not question.fits for question in questions)
    if without_room:
        note = "prompts leave no room in the model's context and get no answer"
        print(f"{without_room} of {len(questions)} {note}", file=sys.stderr)
    return run_in_chunks(
        folder / RESULTS_NAME, questions, chunk_size, one_chunk, description="answering", progress=progress
    )


def _response(text: str, tokens: int, finish_reason: str) -> dict[str, Any]:
    return {"text": text, "tokens": tokens, "finish_reason": finish_reason}


def _rewards(grade: Grade) -> dict[str, Any]:
    return {**asdict(grade), "reward": grade.answer_reward}


def _timed(
    engine: RolloutEngine, prompts: Sequence[str], parameters: SamplingParameters, path: Path
) -> list[list[Rollout]]:
    """The responses; how long they took is added to a file."""
    start = time.perf_counter()
    groups = engine.generate(prompts, parameters)
    seconds = time.perf_counter() - start
    lengths = [len(rollout.token_ids) for group in groups for rollout in group]
    entry = {"examples": len(prompts), "responses": len(lengths), "tokens": sum(lengths), "seconds": seconds}
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
    return groups


def read_throughput(folder: Path) -> dict[str, float | None]:
    """Seconds of all sampling in a folder, examples and response tokens per second; None if nothing was sampled."""
    path = folder / TIMING_NAME
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    examples, tokens, seconds = (sum(entry[name] for entry in entries) for name in ("examples", "tokens", "seconds"))
    return {
        "seconds": seconds,
        "examples_per_second": examples / seconds if seconds else None,
        "tokens_per_second": tokens / seconds if seconds else None,
    }
