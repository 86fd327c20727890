"""Where supervised fine-tuning takes its examples from: files, or the default task."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from cs336_alignment.default_task.tasks import make_examples
from cs336_alignment.online.questions import Question, prompt_name, read_questions
from cs336_alignment.online.reward_functions import reward_function
from cs336_alignment.prompts import alpaca_prompt
from cs336_alignment.records import json_records, text_field
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.sft.documents import document_text, tokenize_documents, tokenize_file
from cs336_alignment.sft.examples import PackedExamples, PromptMaskedExamples, TokenExamples
from cs336_alignment.sft.packed import PackedDocuments
from cs336_basics.command_line import UsageError

DEFAULT_NUM_VALIDATION = 512
"""Validation examples of the default task, if all are asked for."""
_ANSWER_FIELDS = ("answer", "ground_truth")
"""Names that files of demonstrations give the true answer."""
Say = Callable[[str], None]


def training_examples(config: SFTConfig, tokenizer: PreTrainedTokenizerBase, say: Say) -> TokenExamples:
    """The examples of `data`, or of the default task: all, or `num_examples` of them, or the correct ones only.

    Raises:
        UsageError: the file cannot be used, or nothing is left of it.
    """
    if config.packed:
        return _packed(config, tokenizer, config.data, "train", shuffle=True)
    records = _records(config, config.data, "train")
    if config.only_correct:
        records = _correct(records, config, say)
    if config.num_examples and config.num_examples < len(records):
        chosen = np.random.default_rng(config.seed).permutation(len(records))[: config.num_examples]
        records = [records[index] for index in chosen]
    examples = _masked(config, tokenizer, records)
    if examples.num_left_out:
        say(f"left out {examples.num_left_out} of {len(records)} examples longer than {config.max_length} tokens")
    return examples


def validation_examples(config: SFTConfig, tokenizer: PreTrainedTokenizerBase) -> TokenExamples | None:
    """The examples of `val_data`, or of the default task if the training data are; else None.

    Raises:
        UsageError: the file cannot be used.
    """
    if config.val_data is None and config.data is not None:
        return None
    if config.packed:
        return _packed(config, tokenizer, config.val_data, "validation", shuffle=False)
    return _masked(config, tokenizer, _records(config, config.val_data, "validation"))


def evaluation_questions(config: SFTConfig) -> list[Question]:
    """The held-out questions to answer, as the training data put them; none if there are none.

    Raises:
        UsageError: the file cannot be used.
    """
    if config.no_answers:
        return []
    if config.eval_data is not None:
        questions = read_questions(config.eval_data, config.task, prompt_name(config))
    elif config.data is None:
        made = make_examples("validation", config.eval_examples or DEFAULT_NUM_VALIDATION, config.seed)
        questions = [Question(example["prompt"], example["answer"]) for example in made]
    else:
        questions = []
    questions = questions[: config.eval_examples or None]
    if config.packed:  # what the model sees of a document before the response
        questions = [Question(alpaca_prompt(question.prompt), question.answer) for question in questions]
    return questions


def _records(config: SFTConfig, path: str | None, split: str) -> list[dict[str, str]]:
    if path is None:
        num = config.num_examples if split == "train" else config.val_examples or DEFAULT_NUM_VALIDATION
        return list(make_examples(split, num, config.seed))
    records = []
    for place, record in json_records(Path(path)):
        fields = {name: text_field(record, name, place) for name in ("prompt", "response")}
        answers = [record[name] for name in _ANSWER_FIELDS if isinstance(record.get(name), str)]
        records.append({**fields, "answer": answers[0]} if answers else fields)
    return records


def _correct(records: list[dict[str, str]], config: SFTConfig, say: Say) -> list[dict[str, str]]:
    """Those whose response the reward function finds right."""
    if not all("answer" in record for record in records):
        raise UsageError(
            f"only_correct needs a field {' or '.join(map(repr, _ANSWER_FIELDS))} in each line of the data"
        )
    reward_fn = reward_function(config)
    correct = [record for record in records if reward_fn(record["response"], record["answer"])["answer_reward"] == 1]
    if not correct:
        raise UsageError(f"only_correct leaves nothing: none of {len(records)} responses is right")
    say(f"{len(correct)} of {len(records)} responses are right; the others are left out")
    return correct


def _masked(
    config: SFTConfig, tokenizer: PreTrainedTokenizerBase, records: list[dict[str, str]]
) -> PromptMaskedExamples:
    prompts, responses = ([record[name] for record in records] for name in ("prompt", "response"))
    return PromptMaskedExamples(tokenizer, prompts, responses, config.max_length)


def _packed(
    config: SFTConfig, tokenizer: PreTrainedTokenizerBase, path: str | None, split: str, shuffle: bool
) -> PackedExamples:
    if path is None:
        records = _records(config, None, split)
        texts = [document_text(record["prompt"], record["response"]) for record in records]
        documents = tokenize_documents(tokenizer, texts)
    else:
        documents = tokenize_file(tokenizer, path, config.token_cache, progress=True)
    order = np.arange(len(documents))
    if shuffle:
        order = np.random.default_rng(config.seed).permutation(len(documents))
        order = order[: config.num_examples]
    return PackedExamples(PackedDocuments(documents, config.seq_length, order))
