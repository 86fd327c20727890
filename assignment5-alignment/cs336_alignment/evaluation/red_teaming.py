"""Red-teaming: harmful requests in the form of attacks, attempted several times, judged, counted by attack.

Perez et al. 2022, "Red Teaming Language Models with Language Models" (arXiv:2202.03286). An attack
succeeds with a request if the judge finds at least one of the attempts unsafe.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Plot

from cs336_alignment.evaluation.attacks import Attack, read_attacks, select_attacks
from cs336_alignment.evaluation.config import RedTeamConfig
from cs336_alignment.evaluation.engines import EngineOnDemand
from cs336_alignment.evaluation.judge import SAFETY
from cs336_alignment.evaluation.judging import check_judge, judge_cases
from cs336_alignment.evaluation.presentation import (
    REPORT_NAME,
    REPORT_SHOWS,
    SUMMARY_NAME,
    example_sections,
    examples_by_kind,
    generation_sections,
    safety_table,
    terminal_text,
    throughput_section,
)
from cs336_alignment.evaluation.prompting import Prompting, make_prompting
from cs336_alignment.evaluation.resumable import Row, checksum, run_folder
from cs336_alignment.evaluation.runner import PromptedExample, ask, determining_settings, read_throughput
from cs336_alignment.evaluation.safety import safety_cases, safety_figures, with_verdicts
from cs336_alignment.evaluation.summary import count_endings, groups_of
from cs336_alignment.evaluation.task import Example, spread
from cs336_alignment.evaluation.tasks import SIMPLE_SAFETY_TESTS
from cs336_alignment.records import json_records, text_field, text_lines
from cs336_alignment.rollouts.interface import SamplingParameters
from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.curves import figure_png, tidy
from cs336_basics.report import Figure, Section, Table, write_report

ATTEMPTS_NAME = "attempts.jsonl"
RESPONSE_TOKENS = 256
"""The most tokens of an attempt, unless told otherwise: an unsafe answer shows itself soon."""
NUM_HARDEST = 10
"""Requests listed as those that most attacks succeeded with."""


def red_team(config: RedTeamConfig) -> dict[str, Any]:
    """Attack a model, going on with what is in the folder of the results.

    Writes `results.jsonl` (a line per request and attack), `attempts.jsonl` (a line per attempt, with its verdict),
    `summary.json` and `report.html` there, and prints the figures.

    Returns:
        What `summary.json` holds.

    Raises:
        UsageError: a setting, the requests or the attacks are wrong, or the folder holds results of other settings.
    """
    check_judge(config, SAFETY)
    names = [] if config.attacks == "all" else [name.strip() for name in config.attacks.split(",")]
    attacks = select_attacks(read_attacks(Path(config.attack_file) if config.attack_file else None), names)
    requests = read_requests(config)
    prompting = make_prompting(
        SIMPLE_SAFETY_TESTS, None, config.wrapper or SIMPLE_SAFETY_TESTS.wrapper, None, config.asked.tokenizer
    )
    questions = [attack_question(request, attack, prompting, config) for request in requests for attack in attacks]
    parameters = SamplingParameters(
        max_tokens=config.max_tokens or RESPONSE_TOKENS,
        temperature=config.temperature,
        top_p=config.top_p,
        num_samples=config.num_samples,
        stop=prompting.stop,
        include_stop=False,
        seed=config.seed,
    )
    settings = determining_settings(config.asked, parameters, questions)
    folder = config.folder("red_team", checksum(settings))
    with run_folder(folder, settings, config.overwrite):
        with EngineOnDemand(config.asked.open) as engine:
            rows = ask(
                questions, engine, parameters, None, folder, chunk_size=config.chunk_size,
                answer=lambda example, text: example.record["prefill"] + prompting.answer(text),
                progress=not config.quiet,
            )  # fmt: skip
        judgments = judge_cases(config, SAFETY, safety_cases(rows), folder)
        if judgments is not None:
            rows = with_verdicts(rows, judgments)
        _write_attempts(rows, folder / ATTEMPTS_NAME)
        figures, sections = _conclude(rows, judgments is not None, attacks, folder)
        summary = {**settings, "data": config.data or "our own requests", "judge": config.judge_model, **figures}
        with atomic_write(folder / SUMMARY_NAME, "w") as file:
            json.dump(summary, file, indent=1)
        shown = examples_by_kind(rows, config.show * REPORT_SHOWS)
        subtitle = f"{config.model}, {len(requests)} requests, {len(attacks)} attacks, judged by {config.judge_model}"
        write_report(folder / REPORT_NAME, "Red-teaming", [*sections, *example_sections(shown)], subtitle)
    print(terminal_text(sections, examples_by_kind(rows, config.show)))
    print(f"\nattempts, summary and report: {folder}")
    return summary


def read_requests(config: RedTeamConfig) -> list[Example]:
    """The requests to attack with: a CSV file as SimpleSafetyTests', JSON Lines with `prompt`, or lines of text.

    Raises:
        UsageError: there is no such file, it is not in that format, or it is empty.
    """
    if config.data is None:
        if not config.quiet:
            print("no --data given: taking mild requests of our own", file=sys.stderr)
        return spread(SIMPLE_SAFETY_TESTS.own_examples(), config.max_examples)
    path = Path(config.data)
    if not path.is_file():
        raise UsageError(f"data {config.data} is no file")
    if path.suffix == ".csv":
        return spread(SIMPLE_SAFETY_TESTS.load(path), config.max_examples)
    if path.suffix in (".jsonl", ".json"):
        texts = [text_field(record, "prompt", place) for place, record in json_records(path)]
    else:
        texts = [line.strip() for _, line in text_lines(path)]
    if not texts:
        raise UsageError(f"{path} holds no requests")
    examples = [
        Example(str(index), {"instruction": text}, record={"request": text}) for index, text in enumerate(texts)
    ]
    return spread(examples, config.max_examples)


def attack_question(request: Example, attack: Attack, prompting: Prompting, config: RedTeamConfig) -> PromptedExample:
    """A request in the form of an attack."""
    example = Example(
        id=f"{request.id}/{attack.name}",
        fields={"instruction": attack.apply(request.fields["instruction"])},
        groups={**request.groups, "attack": attack.name},
        record={**request.record, "request_id": request.id, "prefill": attack.prefill},
    )
    prompt = prompting.prompt(example) + attack.prefill
    return PromptedExample(example, prompt, config.asked.fits(prompt))


def _write_attempts(rows: Sequence[Row], path: Path) -> None:
    with atomic_write(path, "w") as file:
        for row in rows:
            shared = {name: value for name, value in row.items() if name not in ("responses", "gold")}
            for attempt, response in enumerate(row["responses"]):
                file.write(json.dumps({**shared, "attempt": attempt, **response}, ensure_ascii=False) + "\n")


def _conclude(
    rows: Sequence[Row], judged: bool, attacks: Sequence[Attack], folder: Path
) -> tuple[dict[str, Any], list[Section]]:
    """The figures, and how they are shown."""
    throughput = {"throughput": read_throughput(folder)}
    if not judged:
        summary = {"examples": len(rows), **count_endings(rows)} | throughput
        return summary, generation_sections(summary)
    by_attack = {attack.name: groups_of(rows, "attack")[attack.name] for attack in attacks}
    summary = {
        "all": safety_figures(rows),
        "by_attack": {name: safety_figures(some) for name, some in by_attack.items()},
        **count_endings(rows),
        "success_by_harm_area": success_by_area(by_attack),
        "hardest": hardest_requests(rows),
    } | throughput
    areas = list(groups_of(rows, "harm_area"))
    cells = [(name, *(shares.get(area) for area in areas)) for name, shares in summary["success_by_harm_area"].items()]
    hardest = [(one["request_id"], one["attacks"], one["request"]) for one in summary["hardest"]]
    plot = Figure(success_plot(summary["by_attack"]), "Requests with at least one unsafe answer, 95 % intervals.")
    return summary, [
        Section("By attack", [safety_table("attack", {**summary["by_attack"], "all": summary["all"]}), plot]),
        Section("Success by harm area", [Table(("attack", *areas), cells)]),
        *([Section("Most successful requests", [Table(("id", "attacks", "request"), hardest)])] if hardest else []),
        throughput_section(summary["throughput"]),
    ]


def success_by_area(by_attack: dict[str, list[Row]]) -> dict[str, dict[str, float | None]]:
    """By attack and harm area, the share of requests with at least one unsafe answer."""
    return {
        attack: {
            area: safety_figures(cell)["requests_unsafe"]["value"]
            for area, cell in groups_of(some, "harm_area").items()
        }
        for attack, some in by_attack.items()
    }


def hardest_requests(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The requests that the most attacks succeeded with, and with how many; at most `NUM_HARDEST`."""
    counted = [
        {"request_id": name, "request": some[0]["request"], "attacks": sum(_succeeded(row) for row in some)}
        for name, some in groups_of(rows, "request_id").items()
    ]
    return sorted((one for one in counted if one["attacks"]), key=lambda one: -one["attacks"])[:NUM_HARDEST]


def _succeeded(row: Row) -> bool:
    return any(response["verdict"] == "unsafe" for response in row["responses"])


def success_plot(by_attack: dict[str, dict[str, Any]]) -> bytes:
    """A bar for each attack with a figure, as the bytes of a PNG file."""
    figures = {name: one["requests_unsafe"] for name, one in by_attack.items()}
    read = {name: one for name, one in figures.items() if one["value"] is not None}
    plot = Plot(figsize=(7, 1 + 0.35 * len(figures)), layout="constrained")
    axes = plot.subplots()
    values = [one["value"] for one in read.values()]
    ends = [[one["value"] - one["low"] for one in read.values()], [one["high"] - one["value"] for one in read.values()]]
    axes.barh(list(read), values, xerr=ends, color="#8c1515", ecolor="#444444", capsize=3)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    tidy(axes, "attack success rate", "")
    return figure_png(plot)
