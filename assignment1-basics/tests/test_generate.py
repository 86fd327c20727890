"""Generation: cache, batches, windows and stops against the definition; sampling against transformers' filters."""

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import cs336_basics
from cs336_basics.bpe.train import train_bpe
from cs336_basics.command_line import UsageError
from cs336_basics.generate import generate_text, generate_tokens, main, window_start
from cs336_basics.hf_llama import export_llama
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.sampling import SamplingSettings, next_token_distribution, sample_next_token
from cs336_basics.tokenizer import Tokenizer

VOCAB_SIZE, CONTEXT = 300, 16
PROMPTS = [[5, 6, 7, 8, 9], [10], [11, 12], list(range(20, 30))]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The models here are far too small to share out: a second thread would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_model(**settings) -> BasicsTransformerLM:
    torch.manual_seed(3)
    return BasicsTransformerLM(VOCAB_SIZE, CONTEXT, 32, 2, 4, 64, **settings)


@pytest.fixture(scope="module")
def model() -> BasicsTransformerLM:
    return make_model()


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    text = "Once upon a time there was a little cat named Tom who liked to run and play in the sun.<|endoftext|>" * 9
    (folder / "text.txt").write_text(text, encoding="utf-8")
    vocab, merges = train_bpe(folder / "text.txt", VOCAB_SIZE, ["<|endoftext|>"])
    Tokenizer(vocab, merges, ["<|endoftext|>"]).save(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_dir) -> Tokenizer:
    return Tokenizer.from_directory(tokenizer_dir)


def greedy_by_definition(model: BasicsTransformerLM, prompt: list[int], length: int) -> list[int]:
    """One forward pass over the whole window for each token, without cache, padding or masks."""
    text = list(prompt)
    with torch.no_grad():
        for _ in range(length):
            window = text[window_start(len(text), CONTEXT) :]
            text.append(int(model(torch.tensor([window]))[0, -1].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "kind", [{}, {"position": "none"}, {"norm": "post", "qk_norm": True}, {"tie_embeddings": True}]
)
def test_greedy_equals_the_definition_for_batches_of_any_lengths_past_the_context(kind, use_cache):
    model = make_model(**kind)
    prompts = [*PROMPTS, list(range(40, 90))]  # the last is longer than the context from the start
    expected = [greedy_by_definition(model, prompt, 40) for prompt in prompts]
    assert generate_tokens(model, prompts, 40, temperature=0, use_cache=use_cache) == expected
    one_by_one = [generate_tokens(model, [prompt], 40, temperature=0, use_cache=use_cache)[0] for prompt in prompts]
    assert one_by_one == expected


def test_sampled_text_is_the_same_with_and_without_the_cache(model):
    arguments = {"temperature": 0.9, "top_k": 50, "top_p": 0.9, "seed": 4}
    assert generate_tokens(model, PROMPTS, 30, **arguments) == generate_tokens(
        model, PROMPTS, 30, **arguments, use_cache=False
    )


def test_greedy_equals_transformers_generate(tmp_path):
    from transformers import AutoModelForCausalLM

    model = make_model()
    theirs = AutoModelForCausalLM.from_pretrained(export_llama(model, tmp_path))
    prompt = torch.tensor([PROMPTS[0], PROMPTS[3][:5]])
    expected = theirs.generate(prompt, max_new_tokens=10, do_sample=False, pad_token_id=0)[:, 5:]
    assert generate_tokens(model, prompt.tolist(), 10, temperature=0) == expected.tolist()


def test_generation_reads_one_token_per_step_with_the_cache(model, monkeypatch):
    widths = []
    hidden_states = BasicsTransformerLM.hidden_states

    def counted(self, token_ids, *arguments):
        widths.append(token_ids.shape[-1])
        return hidden_states(self, token_ids, *arguments)

    monkeypatch.setattr(BasicsTransformerLM, "hidden_states", counted)
    generate_tokens(model, [[1, 2, 3]], 30, temperature=0)
    # 13 more tokens fill the context; then the oldest 8 go at once, so every eighth step reads a window of 9.
    assert widths == [3] + [1] * 13 + [9] + [1] * 7 + [9] + [1] * 7


@given(length=st.integers(1, 10_000), context=st.integers(1, 500))
@settings(deadline=None, derandomize=True, max_examples=200)
def test_windows_fit_keep_at_least_half_and_move_in_halves(length, context):
    start, half = window_start(length, context), max(1, context // 2)
    assert start % half == 0
    assert length - start <= context
    assert start == 0 or length - start > context - half


def test_a_stop_token_ends_its_row_only(model):
    free = generate_tokens(model, PROMPTS, 12, temperature=0)
    stop = free[0][3]
    expected = [row[: row.index(stop)] if stop in row else row for row in free]
    assert len(expected[0]) < 12
    assert max(map(len, expected)) == 12
    seen: list[list[int]] = [[] for _ in PROMPTS]
    result = generate_tokens(
        model, PROMPTS, 12, temperature=0, stop_id=stop, on_token=lambda row, token: seen[row].append(token)
    )
    assert result == seen == expected


def test_seeds_repeat_and_leave_the_global_state_alone(model):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = generate_tokens(model, PROMPTS, 20, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert generate_tokens(model, PROMPTS, 20, seed=1) == first
    assert generate_tokens(model, PROMPTS, 20, seed=2) != first
    assert generate_tokens(model, PROMPTS, 20) != generate_tokens(model, PROMPTS, 20)


def test_ids_from_vocab_size_on_are_never_drawn(model):
    rows = generate_tokens(model, [[1]] * 50, 15, temperature=3.0, seed=0, vocab_size=7)
    assert {token for row in rows for token in row} == set(range(7))


def test_nothing_to_do(model):
    assert generate_tokens(model, [], 5) == []
    assert generate_tokens(model, PROMPTS, 0) == [[], [], [], []]


def test_a_half_precision_model_generates():
    half = make_model().bfloat16()
    assert generate_tokens(half, PROMPTS, 8, temperature=0) == generate_tokens(
        half, PROMPTS, 8, temperature=0, use_cache=False
    )


ACCELERATORS = [
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs MPS")),
]


@pytest.mark.parametrize("device", ACCELERATORS)
@pytest.mark.parametrize("use_cache", [True, False])
def test_an_accelerator_generates_the_same(device, use_cache):
    model = make_model().to(device)
    expected = generate_tokens(make_model(), PROMPTS, 30, temperature=0)
    assert generate_tokens(model, PROMPTS, 30, temperature=0, use_cache=use_cache) == expected
    drawn = generate_tokens(model, PROMPTS, 30, top_k=50, top_p=0.9, seed=1, use_cache=use_cache)
    assert drawn == generate_tokens(model, PROMPTS, 30, top_k=50, top_p=0.9, seed=1, use_cache=use_cache)
    assert {len(row) for row in drawn} == {30}


# ---- sampling -------------------------------------------------------------------------------------------------------


def distribution_of_transformers(logits: Tensor, temperature: float, top_k: int | None, top_p: float | None) -> Tensor:
    scores = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        scores = TopKLogitsWarper(top_k)(None, scores)
    if top_p is not None:
        scores = TopPLogitsWarper(top_p)(None, scores)
    return scores.softmax(-1)


def in_vocabulary_order(probabilities: Tensor, token_ids: Tensor | None, vocab_size: int) -> Tensor:
    if token_ids is None:
        return probabilities
    return torch.zeros(probabilities.shape[0], vocab_size).scatter(-1, token_ids, probabilities)


@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.1, 5.0),
    top_k=st.none() | st.integers(1, 60),
    top_p=st.none() | st.floats(0.01, 0.99),
)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_the_distribution_is_that_of_transformers(seed, temperature, top_k, top_p):
    logits = 3 * torch.randn(4, 50, generator=torch.Generator().manual_seed(seed))
    expected = distribution_of_transformers(logits, temperature, top_k, top_p)
    ours = in_vocabulary_order(*next_token_distribution(logits, SamplingSettings(temperature, top_k, top_p)), 50)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.49, [0]), (0.5, [0]), (0.51, [0, 1]), (0.75, [0, 1]), (0.8, [0, 1, 2]), (0.9, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_token_that_crosses_the_sum(top_p, kept):
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()  # exact in binary, so the edges are sharp
    probabilities, token_ids = next_token_distribution(logits, SamplingSettings(top_p=top_p))
    assert sorted(token_ids[probabilities > 0].tolist()) == kept
    assert probabilities.sum() == pytest.approx(1)


def test_top_p_one_keeps_all_as_none_does():
    # In float32 these sum to 1 before the last: a sum that is cut at 1 would lose it.
    logits = torch.tensor([[0.0] + [-20.0] * 50])
    every, ids = next_token_distribution(logits, SamplingSettings(top_p=1.0))
    assert ids is None
    assert (every > 0).all()
    assert torch.equal(every, next_token_distribution(logits, SamplingSettings())[0])


@pytest.mark.parametrize("temperature", [1e-5, 1e-30, 1e-40, 5e-324])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.9}])
def test_a_tiny_temperature_is_greedy_and_shares_between_equals(temperature, filters):
    logits = torch.tensor([[1e4, -1e4, 9e3, 0.0, 5.0], [-7.0, 2.0, 2.0, 1.0, -1e30]])
    drawn = next_token_distribution(logits, SamplingSettings(temperature, **filters))
    expected = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0]])
    assert torch.equal(in_vocabulary_order(*drawn, 5), expected)


def test_drawn_frequencies_are_the_distributions():
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, 3.0])
    expected = distribution_of_transformers(logits.unsqueeze(0), 0.8, 5, 0.97)[0]
    draws = 20_000
    drawn = sample_next_token(
        logits.expand(draws, -1), SamplingSettings(0.8, 5, 0.97), torch.Generator().manual_seed(0)
    )
    frequencies = torch.bincount(drawn, minlength=6) / draws
    assert torch.equal(frequencies == 0, expected == 0)
    deviation = (expected * (1 - expected) / draws).sqrt()
    assert ((frequencies - expected).abs() <= 4 * deviation).all()


def test_temperature_zero_and_top_k_one_take_the_likeliest():
    logits = torch.randn(20, 30, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample_next_token(logits, SamplingSettings(temperature=0)), logits.argmax(-1))
    assert torch.equal(sample_next_token(logits, SamplingSettings(top_k=1)), logits.argmax(-1))


def test_generated_text_follows_the_models_own_probabilities(model):
    """First and second token of many continuations, against the product of the model's conditional probabilities."""
    with torch.no_grad():
        first = model(torch.tensor([[1, 2]]))[0, -1].div(0.15).softmax(-1)
        likely = int(first.argmax())
        second = model(torch.tensor([[1, 2, likely]]))[0, -1].div(0.15).softmax(-1)
    expected = float(first[likely] * second.max())
    rows = generate_tokens(model, [[1, 2]] * 4000, 2, temperature=0.15, seed=0)
    frequency = Counter(map(tuple, rows))[(likely, int(second.argmax()))] / 4000
    assert expected > 0.01
    assert abs(frequency - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"seed": -1}, "seed is -1; allowed are whole numbers from 0"),
        ({"seed": 2**63}, "seed is 9223372036854775808; allowed"),
        ({"max_length": -1}, "max_length is -1"),
        ({"prompts": [[1], []]}, "holds no tokens"),
        ({"prompts": [[1, 300]]}, "ids 1 to 300; the model knows 0 to 299"),
        ({"prompts": [[-1]]}, "ids -1 to -1"),
    ],
)
def test_bad_settings_are_refused(model, arguments, message):
    with pytest.raises(UsageError, match=message):
        generate_tokens(model, **({"prompts": [[1]]} | arguments))


# ---- text -----------------------------------------------------------------------------------------------------------


def test_text_is_prompt_and_decoded_continuation(model, tokenizer):
    prompt = "Once upon a time"
    tokens = generate_tokens(model, [tokenizer.encode(prompt)], 20, seed=5, stop_id=tokenizer.eos_id)[0]
    assert generate_text(model, tokenizer, prompt, max_length=20, seed=5) == prompt + tokenizer.decode(tokens)
    both = generate_text(model, tokenizer, [prompt, "A cat"], 20, 0)
    assert both == [generate_text(model, tokenizer, text, 20, 0) for text in (prompt, "A cat")]


def test_an_empty_prompt_starts_a_document(model, tokenizer):
    expected = generate_tokens(model, [[tokenizer.eos_id]], 10, temperature=0, stop_id=tokenizer.eos_id)[0]
    assert generate_text(model, tokenizer, "", 10, 0) == tokenizer.decode(expected)
    without = Tokenizer(tokenizer.vocab, tokenizer.merges)
    with pytest.raises(UsageError, match="holds no tokens"):
        generate_text(model, without, "", 10, 0)


def test_the_end_of_text_is_not_shown(model, tokenizer):
    biased = make_model()
    with torch.no_grad():  # every hidden state now favors the end of text more than anything else
        biased.ln_final.weight.zero_()
        biased.lm_head.weight.zero_()
    always = generate_tokens(biased, [[1]], 5, temperature=0)[0]
    assert always == [0] * 5
    renamed = Tokenizer({0: b"<|endoftext|>"} | {i + 1: bytes([i]) for i in range(256)}, [], ["<|endoftext|>"])
    assert generate_text(biased, renamed, "Tom", 5, 0) == "Tom"


def model_that_says(text: bytes) -> BasicsTransformerLM:
    """A model over bytes without attention to anything: after each byte comes the one that follows it in `text`."""
    model = BasicsTransformerLM(256, CONTEXT, 256, 1, 1, 8)
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.zero_()
        model.token_embeddings.weight.copy_(torch.eye(256))
        model.lm_head.weight.zero_()
        for current, following in pairwise(text):
            model.lm_head.weight[following, current] = 1.0
    return model


def test_streaming_sends_whole_characters_that_join_to_the_text():
    bytes_only = Tokenizer({i: bytes([i]) for i in range(256)}, [])
    spoken = "é🐈 ok".encode() + "€".encode()[:2]  # ends within a character
    pieces: list[tuple[int, str]] = []
    text = generate_text(
        model_that_says(b"a" + spoken), bytes_only, "a", len(spoken), 0, stream=lambda *piece: pieces.append(piece)
    )
    assert text == "aé🐈 ok\ufffd"
    assert pieces == [(0, character) for character in "é🐈 ok\ufffd"]


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer):
    with pytest.raises(UsageError, match="has 300 ids, but the model knows only 299"):
        generate_text(BasicsTransformerLM(299, 16, 8, 1, 1, 8), tokenizer, "a")


# ---- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, model) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "checkpoint_final.pt"
    torch.save({"model_state_dict": model.state_dict(), "model_config": model.config.to_dict()}, path)
    return path


def test_the_command_prints_samples(model, tokenizer, tokenizer_dir, checkpoint, capsys):
    common = ["--checkpoint", str(checkpoint), "--tokenizer", str(tokenizer_dir), "--device", "cpu", "--seed", "1"]
    sampling = ["--max_length", "12", "--temperature", "0.7", "--top_k", "20", "--top_p", "0.9"]
    main([*common, *sampling, "--prompt", "A cat"])
    assert capsys.readouterr().out == generate_text(model, tokenizer, "A cat", 12, 0.7, 20, 0.9, 1) + "\n"
    main([*common, *sampling, "--num_samples", "3"])
    out = capsys.readouterr().out
    expected = generate_text(model, tokenizer, ["Once upon a time"] * 3, 12, 0.7, 20, 0.9, 1)
    assert [part.partition("\n")[2].rstrip("\n") for part in out.split("--- sample ")[1:]] == expected
    with pytest.raises(UsageError, match="num_samples is 0"):
        main([*common, "--num_samples", "0"])


@pytest.mark.parametrize("program", ["cs336_basics/generate.py", "scripts/generate.py"])
def test_without_a_checkpoint_the_program_says_which_command_makes_one(program, tmp_path, tokenizer_dir):
    root = Path(__file__).parents[1]
    arguments = ["--tokenizer", str(tokenizer_dir)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(root / program), *arguments], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "checkpoints/checkpoint_final.pt" in done.stderr
    assert "uv run python cs336_basics/train.py" in done.stderr


def test_no_module_of_the_package_hides_one_of_the_standard_library():
    """`python cs336_basics/generate.py` puts the package's folder first on the module path."""
    names = {path.stem for path in Path(cs336_basics.__file__).parent.iterdir()}
    assert "generate" in names
    assert not names & set(sys.stdlib_module_names)
