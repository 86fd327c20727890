"""How an example is put to the model: template, worked examples, what is wrapped around, and where the answer ends."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from transformers import PreTrainedTokenizerBase

from cs336_alignment.evaluation.task import AnswerFormat, Example, Task
from cs336_alignment.grading.extraction import ANSWER_CLOSE
from cs336_alignment.prompts import load_prompt
from cs336_basics.command_line import UsageError

CHAT, NONE = "chat", "none"
_FORMATS: dict[str, AnswerFormat] = {
    "r1_zero": "r1_zero",
    "r1_zero_three_shot_gsm8k": "r1_zero",
    "arithmetic": "r1_zero",
    "countdown": "r1_zero",
    "math": "boxed",
    "question_only": "boxed",
    "gsm8k": "last_number",
    "mmlu": "option_letter",
}
_WRAPPER_STOPS = {"zero_shot_system_prompt": ("# Query:",), "alpaca_sft": ("### Instruction:",)}
_CLOSING_FENCE = re.compile(r"\s*```\s*\Z")


@dataclass(frozen=True)
class Prompting:
    """How a task's examples become prompts, and responses answers.

    Attributes:
        template: the text around the example's fields.
        wrapper: a template around that, with the field `instruction`; empty for none.
        chat_tokenizer: puts the prompt into its chat template as the user's message; None for none.
        answer_format: where a response gives its answer; None if only a judge can tell.
        stop: strings that end a response.
        fenced: whether a response ends with a fence that is not part of it.
        shots: worked examples that come first.
    """

    template: str
    wrapper: str = ""
    chat_tokenizer: PreTrainedTokenizerBase | None = None
    answer_format: AnswerFormat | None = None
    stop: tuple[str, ...] = ()
    fenced: bool = False

    def prompt(self, example: Example, shots: Sequence[Example] = ()) -> str:
        """The text the model continues.

        Args:
            example: what is asked.
            shots: worked examples that come before it.

        Raises:
            UsageError: the template has a field that the example has not.
        """
        if "prompt" in example.fields:
            return example.fields["prompt"]
        worked = [f"{self._filled(shot)} The correct answer is {shot.gold}." for shot in shots]
        text = "\n\n".join([*worked, self._filled(example)])
        if self.wrapper:
            text = self.wrapper.format(instruction=text)
        return text if self.chat_tokenizer is None else as_chat(self.chat_tokenizer, text)

    def answer(self, response: str) -> str:
        """The response without what only the wrapper makes the model write: the fence that closes it."""
        return _CLOSING_FENCE.sub("", response) if self.fenced else response

    @property
    def keeps_stop(self) -> bool:
        """Whether the string that ended a response is part of it."""
        return self.answer_format == "r1_zero"

    def _filled(self, example: Example) -> str:
        try:
            return self.template.format(**example.fields)
        except (KeyError, IndexError) as error:
            raise UsageError(
                f"the prompt template asks for the field {error}, but examples have {', '.join(example.fields)}"
            ) from None


def make_prompting(
    task: Task, prompt: str | None, wrapper: str | None, answer_format: str | None, tokenizer: PreTrainedTokenizerBase
) -> Prompting:
    """How to put a task's examples.

    Args:
        task: the benchmark.
        prompt: the name of one of our templates, or a template file; None for the task's own.
        wrapper: the same, with the field `instruction`; "chat" for the tokenizer's chat template; "none"; None for
            what the task has around its own prompt, and nothing around another one.
        answer_format: how responses are graded; None for what goes with the prompt.
        tokenizer: the model's.

    Raises:
        UsageError: there is no such template, a template has wrong fields, the model has no chat template, or the
            task has no grader for that form of answer.
    """
    name = prompt or task.prompt
    if wrapper is None:
        wrapper = task.wrapper if name == task.prompt else NONE
    graded_as = answer_format or _FORMATS.get(name, task.default_format) if task.graders else None
    if graded_as is not None and graded_as not in task.graders:
        raise UsageError(
            f"task {task.name} cannot grade answers of the form {graded_as!r}; it can {', '.join(task.graders)}"
        )
    stop = (ANSWER_CLOSE,) if graded_as == "r1_zero" else ()
    return Prompting(
        template=load_prompt(name),
        wrapper=_read_wrapper(wrapper),
        chat_tokenizer=_chat_tokenizer(tokenizer) if wrapper == CHAT else None,
        answer_format=graded_as,
        stop=stop + _WRAPPER_STOPS.get(wrapper, ()),
        fenced=wrapper == "zero_shot_system_prompt",
    )


def as_chat(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text as the user's message in the tokenizer's chat template, up to where the answer begins.

    A beginning-of-text token at its front is left out: tokenizing the prompt adds it.
    """
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    adds_beginning = tokenizer.bos_token_id is not None and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return chat.removeprefix(tokenizer.bos_token) if adds_beginning else chat


def _chat_tokenizer(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    if tokenizer.chat_template is None:
        raise UsageError(f"the tokenizer of {tokenizer.name_or_path} has no chat template; give another --wrapper")
    return tokenizer


def _read_wrapper(name: str) -> str:
    if name in ("", NONE, CHAT):
        return ""
    template = load_prompt(name)
    fields = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    if fields == {"instruction", "response"}:
        return template.partition("{response}")[0]
    if fields != {"instruction"}:
        raise UsageError(f"wrapper {name!r} must have the one field 'instruction', not {sorted(fields)}")
    return template
