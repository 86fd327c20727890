"""Stop strings: the finder against decoding every prefix, and the engine's text, tokens and log-probabilities."""

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cs336_alignment.rollouts import SamplingParameters
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.rollouts.stop_strings import StopStrings, decode

from .rollout_models import PROMPTS, make_model
from .tiny_models import tiny_tokenizer


@cache
def sentence_piece_like() -> PreTrainedTokenizerFast:
    """As Llama 2's: blanks are part of words, the first one is dropped, unknown characters fall back to bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "a", "b", "▁a", "▁ab", "ab", "</", "answer", ">", "ü", "\n"]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, [], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


TOKENIZERS = {"byte level": tiny_tokenizer, "sentencepiece": sentence_piece_like}


def first_stop(tokenizer, token_ids, stop, after):
    """By brute force: the text of each longer prefix, as text(cut) and number of tokens; None without a stop string."""
    before = ""
    for length in range(1, len(token_ids) + 1):
        text = decode(tokenizer, token_ids[:length])
        # What ends in the characters that this token completed; bytes of an unfinished character are not text yet.
        settled = len(before.rstrip("�"))
        ends = [
            (end, start)
            for string in stop
            for start in range(len(text))
            if text.startswith(string, start) and (end := start + len(string)) > settled
        ]
        if length > after and ends:
            end, start = min(ends)
            return length, start, end
        before = text
    return None


def token_ids(name):
    tokenizer = TOKENIZERS[name]()
    # Mostly what makes up the strings below: single characters, bytes of longer ones, and special tokens.
    likely = [token for text in "ab ü\n🙂</answer>" for token in tokenizer(text, add_special_tokens=False).input_ids]
    everything = st.integers(0, len(tokenizer) - 1)
    return st.lists(st.one_of(st.sampled_from(sorted(set(likely))), everything), max_size=40)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, derandomize=True, max_examples=250)
@given(data=st.data(), stop=st.lists(st.text("ab ü\n🙂</nswer>", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_first_stop_string_is_found(name, data, stop):
    tokenizer = TOKENIZERS[name]()
    ids = data.draw(token_ids(name))
    after = data.draw(st.integers(0, 6))
    finder = StopStrings(stop, tokenizer, len(tokenizer))
    found = None
    for length in range(after + 1, len(ids) + 1):
        newest = torch.tensor(ids[length - 1 : length]).numpy()
        if finder.may_complete(newest)[0] and (match := finder.find(ids[:length])) is not None:
            found = (length, match.start, match.end)
            break
    assert found == first_stop(tokenizer, ids, stop, after)


@pytest.fixture(scope="module")
def engine():
    return HFEngine(make_model("qwen2"), tiny_tokenizer())


@pytest.mark.parametrize("include_stop", [True, False])
def test_responses_end_at_the_first_stop_string(engine, include_stop):
    tokenizer = engine.tokenizer
    whole = {"max_tokens": 60, "num_samples": 4, "seed": 1, "log_probs": True}
    free = engine.generate(PROMPTS, SamplingParameters(**whole))
    # Strings that do occur: pieces of two characters from the middle of some responses.
    stop = tuple({rollout.text[10:12] for rollout in (free[0][0], free[1][0], free[2][1]) if len(rollout.text) > 12})
    assert stop
    parameters = SamplingParameters(**whole, stop=stop, include_stop=include_stop)
    stopped = 0
    for free_group, group in zip(free, engine.generate(PROMPTS, parameters), strict=True):
        for unstopped, rollout in zip(free_group, group, strict=True):
            expected = first_stop(tokenizer, unstopped.token_ids, stop, after=0)
            if expected is None:
                assert (rollout.token_ids, rollout.text) == (unstopped.token_ids, unstopped.text)
                assert rollout.finish_reason == unstopped.finish_reason
                continue
            length, start, end = expected
            assert rollout.token_ids == unstopped.token_ids[:length]
            assert rollout.text == decode(tokenizer, rollout.token_ids)[: end if include_stop else start]
            assert rollout.finish_reason == "stop"
            torch.testing.assert_close(
                torch.tensor(rollout.log_probs), torch.tensor(unstopped.log_probs[:length]), rtol=1e-4, atol=1e-4
            )
            stopped += 1
    assert stopped >= 2


def test_a_stop_string_that_is_complete_before_min_tokens_does_not_count(engine):
    free = engine.generate(["so on"], SamplingParameters(max_tokens=40, temperature=0.0))[0][0]
    first = decode(engine.tokenizer, free.token_ids[:2])[:1]
    assert first.strip()
    assert first != "�"
    at_once = engine.generate(["so on"], SamplingParameters(max_tokens=40, temperature=0.0, stop=(first,)))[0][0]
    later = engine.generate(["so on"], SamplingParameters(max_tokens=40, temperature=0.0, stop=(first,), min_tokens=5))[
        0
    ][0]
    assert at_once.text == first
    assert len(later.token_ids) > 5
    expected = first_stop(engine.tokenizer, free.token_ids, (first,), after=5)
    assert len(later.token_ids) == (expected[0] if expected else 40)
