"""Packed instruction data against a plain construction of the same stream."""

import gzip
import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cs336_alignment.sft import documents as documents_module
from cs336_alignment.sft.batches import iterate_batches
from cs336_alignment.sft.documents import TokenizedDocuments, document_texts, tokenize_documents, tokenize_file
from cs336_alignment.sft.packed import PackedDocuments, PackedSFTDataset
from cs336_basics.command_line import UsageError

BOS, EOS = 256, 257
EXAMPLES = [
    {"prompt": "Add 1 and 2.", "response": "It is 3.\n"},
    {"prompt": "Say\nnothing {at} all", "response": ""},
    {"prompt": "Grüße?", "response": "  Ja – gerne.  "},
    *({"prompt": f"Count to {n}.", "response": " ".join(map(str, range(n)))} for n in range(12)),
]


def byte_tokenizer(adds_bos=False, adds_eos=False, has_eos=True):
    """A tokenizer whose ids are bytes, with the special tokens that a convention puts around a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|begin|>", "<|end|>"])
    pieces = [*(["<|begin|>"] if adds_bos else []), "$A", *(["<|end|>"] if adds_eos else [])]
    backend.post_processor = processors.TemplateProcessing(
        single=" ".join(pieces), special_tokens=[("<|begin|>", BOS), ("<|end|>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin|>" if adds_bos else None,
        eos_token="<|end|>" if has_eos else None,
    )


def write(path, examples=EXAMPLES):
    lines = "".join(json.dumps(example) + "\n" for example in examples)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines, encoding="utf-8")
    return path


def expected_documents(tokenizer, adds_bos):
    """The ids of each example, spelled out."""
    template = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\n{}\n\n### Response:\n{}"
    )
    bos = [BOS] if adds_bos else []
    texts = [template.format(example["prompt"], example["response"]) for example in EXAMPLES]
    return [[*bos, *tokenizer(text, add_special_tokens=False)["input_ids"], EOS] for text in texts]


def pieces_of(stream, seq_length):
    """Inputs and labels of each piece, by slicing the whole stream."""
    pairs = []
    start = 0
    while start + seq_length + 1 <= len(stream):
        pairs.append((stream[start : start + seq_length], stream[start + 1 : start + seq_length + 1]))
        start += seq_length
    return pairs


def as_lists(dataset):
    return [(item["input_ids"].tolist(), item["labels"].tolist()) for item in (dataset[i] for i in range(len(dataset)))]


@pytest.mark.parametrize(("adds_bos", "adds_eos"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_pieces_of_the_file_in_order(tmp_path, adds_bos, adds_eos, name):
    tokenizer = byte_tokenizer(adds_bos, adds_eos)
    dataset = PackedSFTDataset(tokenizer, write(tmp_path / name), 32, shuffle=False)
    stream = [token for ids in expected_documents(tokenizer, adds_bos) for token in ids]
    assert as_lists(dataset) == pieces_of(stream, 32)
    item = dataset[-1]
    assert item["input_ids"].dtype == item["labels"].dtype == torch.int64
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_shuffling_permutes_whole_documents(tmp_path):
    tokenizer = byte_tokenizer(adds_bos=True)
    path = write(tmp_path / "data.jsonl")
    first, again, other = (PackedSFTDataset(tokenizer, path, 1, shuffle=True, seed=seed) for seed in (1, 1, 2))
    assert as_lists(first) == as_lists(again) != as_lists(other)
    stream = [ids[0] for ids, _ in as_lists(first)] + as_lists(first)[-1][1]
    documents, document = [], []
    for token in stream:
        document.append(token)
        if token == EOS:
            documents.append(document)
            document = []
    assert not document
    assert sorted(documents) == sorted(expected_documents(tokenizer, True))
    torch.manual_seed(5)
    unseeded = as_lists(PackedSFTDataset(tokenizer, path, 8, shuffle=True))
    torch.manual_seed(5)
    assert as_lists(PackedSFTDataset(tokenizer, path, 8, shuffle=True)) == unseeded


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=12),
    st.integers(1, 40),
    st.randoms(use_true_random=False),
)
def test_packing_equals_slicing_the_joined_stream(documents, seq_length, random_numbers):
    order = list(range(len(documents)))
    random_numbers.shuffle(order)
    stream = [token for index in order for token in documents[index]]
    offsets = np.cumsum([0, *map(len, documents)])
    tokenized = TokenizedDocuments(np.array(list(itertools.chain(*documents)), dtype=np.uint16), offsets)
    if len(stream) <= seq_length:
        with pytest.raises(UsageError, match="seq_length"):
            PackedDocuments(tokenized, seq_length, np.array(order))
        return
    assert as_lists(PackedDocuments(tokenized, seq_length, np.array(order))) == pieces_of(stream, seq_length)


def test_the_cache_holds_the_same_documents_and_is_used(tmp_path, monkeypatch):
    tokenizer, path, cache = byte_tokenizer(), write(tmp_path / "data.jsonl"), tmp_path / "cache"
    monkeypatch.setattr(documents_module, "_DOCUMENTS_AT_ONCE", 4)
    plain = tokenize_documents(tokenizer, document_texts(path))
    first = tokenize_file(tokenizer, path, cache)
    times = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert len(times) == 2
    second = tokenize_file(tokenizer, path, cache)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == times
    for documents in (first, second):
        assert documents.tokens.tolist() == plain.tokens.tolist()
        assert documents.offsets.tolist() == plain.offsets.tolist()
    # Another tokenizer, or another file, is another entry.
    tokenize_file(byte_tokenizer(adds_bos=True), path, cache)
    tokenize_file(tokenizer, write(tmp_path / "data.jsonl", EXAMPLES[:3]), cache)
    assert len(list(cache.iterdir())) == 6


def test_an_interrupted_tokenization_leaves_nothing_that_is_taken_for_whole(tmp_path, monkeypatch):
    tokenizer, path, cache = byte_tokenizer(), tmp_path / "data.jsonl", tmp_path / "cache"
    monkeypatch.setattr(documents_module, "_DOCUMENTS_AT_ONCE", 4)
    write(path, [*EXAMPLES, {"prompt": "no response"}])
    with pytest.raises(UsageError, match=r"data\.jsonl:16: no field 'response'"):
        tokenize_file(tokenizer, path, cache)
    assert list(cache.iterdir()) == []


def test_what_cannot_be_packed_is_said(tmp_path):
    path = write(tmp_path / "data.jsonl")
    with pytest.raises(UsageError, match="end-of-sequence"):
        PackedSFTDataset(byte_tokenizer(has_eos=False), path, 8, shuffle=False)
    with pytest.raises(UsageError, match="seq_length is 0"):
        PackedSFTDataset(byte_tokenizer(), path, 0, shuffle=False)
    (tmp_path / "bad.jsonl").write_text('{"prompt": 3, "response": ""}\n')
    with pytest.raises(UsageError, match=r"bad\.jsonl:1: the field 'prompt' is 3"):
        PackedSFTDataset(byte_tokenizer(), tmp_path / "bad.jsonl", 8, shuffle=False)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_batches_go_through_all_items_once(tmp_path, batch_size):
    dataset = PackedSFTDataset(byte_tokenizer(), write(tmp_path / "data.jsonl"), 64, shuffle=False)
    batches = iterate_batches(dataset, batch_size, shuffle=False)
    assert len(batches) == -(-len(dataset) // batch_size)
    in_order = list(batches)
    assert [len(batch["input_ids"]) for batch in in_order[:-1]] == [batch_size] * (len(batches) - 1)
    rows = [row.tolist() for batch in in_order for row in batch["labels"]]
    assert rows == [labels for _, labels in as_lists(dataset)]
    torch.manual_seed(0)
    shuffled = [row.tolist() for batch in iterate_batches(dataset, batch_size, shuffle=True) for row in batch["labels"]]
    assert sorted(shuffled) == sorted(rows)
    assert shuffled != rows
    with pytest.raises(UsageError, match="batch_size is 0"):
        iterate_batches(dataset, 0, shuffle=False)
