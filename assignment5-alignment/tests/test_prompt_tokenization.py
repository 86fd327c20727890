"""Prompts and outputs as tokens against the tokenizer's own ids, row by row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from cs336_alignment.tokenization import join_prompt_and_output_ids, pad_token_id, tokenize_prompt_and_output
from cs336_basics.command_line import UsageError

from .tiny_models import tiny_tokenizer


def ids(text):
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(rows=st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=5))
def test_rows_are_the_tokenizers_ids_joined_padded_and_then_cut(rows):
    prompts, outputs = map(list, zip(*rows, strict=True))
    batch = tokenize_prompt_and_output(prompts, outputs, tiny_tokenizer())
    expected = [ids(prompt) + ids(output) for prompt, output in rows]
    width = max(1, *map(len, expected))
    for row, (prompt, output) in enumerate(rows):
        padded = expected[row] + [tiny_tokenizer().pad_token_id] * (width - len(expected[row]))
        start, stop = len(ids(prompt)), len(ids(prompt)) + len(ids(output))
        assert batch["input_ids"][row].tolist() == padded[:-1]
        assert batch["labels"][row].tolist() == padded[1:]
        # Position i of the labels is position i + 1 of the row.
        assert batch["response_mask"][row].tolist() == [start <= position < stop for position in range(1, width)]
    assert batch["input_ids"].dtype == batch["labels"].dtype == torch.int64
    assert batch["response_mask"].dtype == torch.bool


def test_a_shorter_row_keeps_its_last_token_in_the_inputs():
    batch = tokenize_prompt_and_output(["a", "a"], ["b", "bcdefgh"], tiny_tokenizer())
    (last,) = ids("b")
    assert batch["input_ids"][0, 1] == last
    assert batch["input_ids"][0, 2:].unique().tolist() == [tiny_tokenizer().pad_token_id]
    assert batch["labels"][0, 0] == last


def test_no_special_token_is_added_though_the_tokenizer_would():
    assert tiny_tokenizer()("a")["input_ids"][0] == tiny_tokenizer().bos_token_id
    batch = tokenize_prompt_and_output(["Question"], ["answer"], tiny_tokenizer())
    assert not torch.isin(batch["input_ids"], torch.tensor(tiny_tokenizer().all_special_ids)).any()


def test_prompt_and_output_do_not_merge():
    together, apart = ids("Question"), ids("Quest") + ids("ion")
    assert together != apart
    assert tokenize_prompt_and_output(["Quest"], ["ion"], tiny_tokenizer())["labels"][0].tolist() == apart[1:]


def test_a_tokenizer_without_a_pad_token_pads_with_its_end_token():
    without = tiny_tokenizer(pad_token=None)
    batch = tokenize_prompt_and_output(["a", "a"], ["b", "bcdefgh"], without)
    assert batch["labels"][0, 1:].unique().tolist() == [without.eos_token_id]
    neither = PreTrainedTokenizerFast(tokenizer_object=without.backend_tokenizer)
    with pytest.raises(UsageError, match="neither a pad token nor an end-of-sequence token"):
        pad_token_id(neither)


def test_ids_are_joined_as_text_is():
    by_ids = join_prompt_and_output_ids([[5, 6], [7]], [[8], [9, 10, 11]], pad_id=0)
    assert by_ids["input_ids"].tolist() == [[5, 6, 8], [7, 9, 10]]
    assert by_ids["labels"].tolist() == [[6, 8, 0], [9, 10, 11]]
    assert by_ids["response_mask"].tolist() == [[False, True, False], [True, True, True]]


@pytest.mark.parametrize(("prompts", "outputs"), [([], []), (["a"], []), (["a"], ["b", "c"])])
def test_refuses_lists_of_different_lengths(prompts, outputs):
    with pytest.raises(UsageError, match=f"got {len(prompts)} prompts and {len(outputs)} outputs"):
        tokenize_prompt_and_output(prompts, outputs, tiny_tokenizer())
