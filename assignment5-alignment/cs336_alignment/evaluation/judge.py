"""A language model as the judge: which of two answers is better, and whether an answer is safe.

Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena" (arXiv:2306.05685): judges favor the answer
that stands first, so each pair is judged in both orders (section 3.4).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from transformers import PreTrainedTokenizerBase

from cs336_alignment.evaluation.engines import EngineOnDemand
from cs336_alignment.evaluation.prompting import as_chat
from cs336_alignment.evaluation.resumable import Row, run_in_chunks
from cs336_alignment.prompts import load_prompt
from cs336_alignment.rollouts.interface import SamplingParameters
from cs336_basics.command_line import UsageError


@dataclass(frozen=True)
class Assignment:
    """What a judge is to judge.

    Attributes:
        prompt: the name of our prompt for it.
        fields: of the prompt.
        verdicts: the words a verdict may be.
    """

    prompt: str
    fields: tuple[str, ...]
    verdicts: tuple[str, ...]


PAIRWISE = Assignment("judge_pairwise", ("instruction", "output_a", "output_b"), ("A", "B", "tie"))
SAFETY = Assignment("judge_safety", ("instruction", "output"), ("safe", "unsafe"))
_VERDICT = r"verdict\W*({})[^\w\n]*$"


@dataclass(frozen=True)
class Judge:
    """A model with a prompt and a way to read its verdict.

    Attributes:
        assignment: what it is to judge.
        template: the prompt, with the assignment's fields.
        tokenizer: the model's; its chat template is used if it has one.
        fits: whether the model's context has room for a prompt; a case that does not fit gets no verdict.
        max_tokens: of a judgment.
    """

    assignment: Assignment
    template: str
    tokenizer: PreTrainedTokenizerBase
    fits: Callable[[str], bool]
    max_tokens: int = 256

    def prompt(self, fields: dict[str, str]) -> str:
        """What the judge reads."""
        text = self.template.format(**fields)
        return as_chat(self.tokenizer, text) if self.tokenizer.chat_template else text

    def judge(
        self,
        cases: Sequence[dict[str, str]],
        engine: EngineOnDemand,
        path: Path,
        chunk_size: int,
        progress: bool = True,
    ) -> list[Row]:
        """Judge cases, but for those that an earlier call has judged.

        Args:
            cases: the fields of the prompt for each.
            engine: the judge's model.
            path: the JSON Lines file of the judgments.
            chunk_size: cases between two savings.
            progress: show a progress bar.

        Returns:
            For each case its `verdict`, None where none could be read, and the `judgment` as the model wrote it.
        """
        parameters = SamplingParameters(max_tokens=self.max_tokens, temperature=0.0, seed=0)

        def one_chunk(chunk: Sequence[dict[str, str]]) -> list[Row]:
            prompts = [self.prompt(fields) for fields in chunk]
            fitting = [prompt for prompt in prompts if self.fits(prompt)]
            groups = engine.opened().generate(fitting, parameters) if fitting else []
            texts = {prompt: rollout.text for prompt, (rollout,) in zip(fitting, groups, strict=True)}
            judgments = [texts.get(prompt, "") for prompt in prompts]
            return [{"verdict": parse_verdict(text, self.assignment.verdicts), "judgment": text} for text in judgments]

        return run_in_chunks(path, cases, chunk_size, one_chunk, description="judging", progress=progress)


def read_judge_prompt(name: str, fields: Sequence[str]) -> str:
    """A judge's prompt, one of ours by name or a file.

    Raises:
        UsageError: there is no such prompt, or it has other fields.
    """
    template = load_prompt(name)
    found = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    if found != set(fields):
        raise UsageError(f"judge prompt {name!r} has the fields {sorted(found)}; it must have {sorted(fields)}")
    return template


def parse_verdict(judgment: str, verdicts: Sequence[str]) -> str | None:
    """The word at the end of the last line "Verdict: WORD", else the one that is the whole judgment, else None.

    Case and Markdown around it do not matter. A judgment that names several words without such a line is no verdict:
    "unsafe" must not be read out of "it would be unsafe if".
    """
    words = {word.lower(): word for word in verdicts}
    choice = "|".join(map(re.escape, words))
    found = re.findall(_VERDICT.format(choice), judgment, re.IGNORECASE | re.MULTILINE)
    return words.get((found[-1] if found else re.sub(r"\W", "", judgment)).lower())


def pair_cases(pairs: Sequence[tuple[str, str, str]]) -> list[dict[str, str]]:
    """Two cases for each (instruction, answer, reference): the answer as A, then as B."""
    return [
        {"instruction": instruction, "output_a": first, "output_b": second}
        for instruction, answer, reference in pairs
        for first, second in ((answer, reference), (reference, answer))
    ]


@dataclass(frozen=True)
class Comparison:
    """Both judgments of one pair.

    Attributes:
        as_first, as_second: the verdict where the answer stood first, or second.
    """

    as_first: str | None
    as_second: str | None

    @property
    def preference(self) -> float | None:
        """How much the answer is preferred to the reference: 1, 0, or between; None if no verdict could be read.

        It is the mean over the orders, so a judge that always takes the first answer comes to 0.5.
        """
        if self.as_first is None or self.as_second is None:
            return None
        first = {"A": 1.0, "tie": 0.5, "B": 0.0}[self.as_first]
        second = {"B": 1.0, "tie": 0.5, "A": 0.0}[self.as_second]
        return (first + second) / 2

    @property
    def consistent(self) -> bool | None:
        """Whether both orders led to the same winner; None if a verdict could not be read."""
        if self.preference is None:
            return None
        return (self.as_first, self.as_second) in (("A", "B"), ("B", "A"), ("tie", "tie"))


def compare(judgments: Sequence[Row]) -> list[Comparison]:
    """The comparisons of `pair_cases`' judgments."""
    return [
        Comparison(first["verdict"], second["verdict"])
        for first, second in zip(judgments[::2], judgments[1::2], strict=True)
    ]
