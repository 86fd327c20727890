"""Continue texts with a trained model: as a function, and as a command that streams to the terminal.

    uv run python cs336_basics/generate.py --prompt "Once upon a time" --temperature 0.8

The model sees at most `context_length` tokens. A text that outgrows them loses its oldest half context at a time
(`window_start`), so that between two such cuts every token costs one cached step; with and without the cache, the model
sees the same window.
"""

import argparse
import codecs
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

if __name__ == "__main__":
    from cs336_basics.import_path import leave_package_folder

    leave_package_folder()

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cs336_basics.check_pointing import load_model
from cs336_basics.command_line import UsageError, run_command
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.model.functional import causal_mask
from cs336_basics.model.kv_cache import KeyValueCache
from cs336_basics.sampling import SamplingSettings, sample_next_token
from cs336_basics.tokenizer import Tokenizer


def window_start(length: int, context_length: int) -> int:
    """The first token the model sees of a text of `length` tokens: the least multiple of half a context length that
    leaves no more than `context_length` tokens."""
    half = max(1, context_length // 2)
    return max(0, -(-(length - context_length) // half) * half)


class _NextTokenLogits:
    """Computes the logits of the token after each of a batch of texts.

    Texts of different lengths are padded on the left, so that all their last tokens stand in one column; padding is
    masked, and positions count from each text's own first token.

    Args:
        model: the language model.
        batch_size: number of texts.
        capacity: columns to set aside in the cache; None computes everything anew each time.
    """

    def __init__(self, model: BasicsTransformerLM, batch_size: int, capacity: int | None) -> None:
        self.model = model
        weight = model.token_embeddings.weight
        self.device = weight.device
        self.cache = (
            KeyValueCache(model.config, batch_size, capacity, self.device, weight.dtype)
            if capacity is not None
            else None
        )
        self.starts: list[int] = []
        self.padding: Int[Tensor, "batch 1"] | None = None

    def __call__(self, texts: list[list[int]]) -> Float[Tensor, "batch vocab"]:
        """The logits after each text; since the last call, each text has grown by one token."""
        starts = [window_start(len(text), self.model.config.context_length) for text in texts]
        if self.cache is not None and self.cache.length and starts == self.starts:
            return self._read([text[-1:] for text in texts], self.cache.length)
        if self.cache is not None:
            self.cache.clear()
        self.starts = starts
        windows = [text[start:] for text, start in zip(texts, starts, strict=True)]
        columns = max(map(len, windows))
        padding = [[columns - len(window)] for window in windows]
        self.padding = torch.tensor(padding, device=self.device) if any(count for (count,) in padding) else None
        return self._read([[0] * (columns - len(window)) + window for window in windows], 0)

    def _read(self, rows: list[list[int]], seen: int) -> Float[Tensor, "batch vocab"]:
        """Feed rows of equal length that follow `seen` cached columns; returns the logits after the last column."""
        token_ids = torch.tensor(rows, device=self.device)
        positions = mask = None
        if self.padding is not None:
            columns = torch.arange(seen + token_ids.shape[1], device=self.device)
            positions = (columns[seen:] - self.padding).clamp(min=0)
            is_text = (columns >= self.padding).unsqueeze(1)
            mask = is_text & causal_mask(token_ids.shape[1], len(columns), self.device)
        hidden = self.model.hidden_states(token_ids, positions, mask, self.cache)
        return self.model.lm_head(hidden[:, -1])


@torch.inference_mode()
def generate_tokens(
    model: BasicsTransformerLM,
    prompts: Sequence[Sequence[int]],
    max_length: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    *,
    stop_id: int | None = None,
    vocab_size: int | None = None,
    use_cache: bool = True,
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Continue each prompt, all of them together.

    Args:
        model: the language model; it decides the device.
        prompts: token ids, at least one per prompt; the lengths may differ.
        max_length: the most new tokens per prompt.
        temperature, top_k, top_p: as in `SamplingSettings`.
        seed: of the random draws; None draws differently each time. The global random state is left alone.
        stop_id: the token that ends a continuation and is not part of it.
        vocab_size: only ids below it are drawn (a model's vocabulary may be padded); None allows all.
        use_cache: keep keys and values of earlier tokens; False computes every step from the whole window.
        on_token: called with (prompt's index, token id) for each token as it is drawn.

    Returns:
        The new tokens of each prompt.

    Raises:
        UsageError: a prompt is empty or holds an unknown id, or a setting is out of range.
    """
    settings = SamplingSettings(temperature, top_k, top_p)
    if seed is not None and not 0 <= seed < 2**63:
        raise UsageError(f"seed is {seed}; allowed are whole numbers from 0 to {2**63 - 1}")
    if max_length < 0:
        raise UsageError(f"max_length is {max_length}; allowed are whole numbers from 0")
    for prompt in prompts:
        if not prompt:
            raise UsageError("a prompt holds no tokens; at least one is needed")
        if not (min(prompt) >= 0 and max(prompt) < model.config.vocab_size):
            raise UsageError(
                f"a prompt has ids {min(prompt)} to {max(prompt)}; the model knows 0 to {model.config.vocab_size - 1}"
            )
    if not prompts or not max_length:
        return [[] for _ in prompts]

    device = model.token_embeddings.weight.device
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    texts = [list(prompt) for prompt in prompts]
    capacity = min(model.config.context_length, max(map(len, texts)) + max_length) if use_cache else None
    next_token_logits = _NextTokenLogits(model, len(texts), capacity)
    ends: dict[int, int] = {}
    for _ in range(max_length):
        logits = next_token_logits(texts)[:, :vocab_size]
        # A text that has ended goes on growing unseen, which keeps all rows in step; it is cut at its end below.
        for index, token in enumerate(sample_next_token(logits, settings, generator).tolist()):
            if token == stop_id:
                ends.setdefault(index, len(texts[index]))
            elif on_token is not None and index not in ends:
                on_token(index, token)
            texts[index].append(token)
        if len(ends) == len(texts):
            break
    return [
        text[len(prompt) : ends.get(index)] for index, (text, prompt) in enumerate(zip(texts, prompts, strict=True))
    ]


class _StreamingDecoder:
    """Turns each prompt's tokens into text piece by piece, holding back a character whose bytes are not all there."""

    def __init__(self, tokenizer: Tokenizer, num_prompts: int, stream: Callable[[int, str], None]) -> None:
        self.vocab, self.stream = tokenizer.vocab, stream
        self.decoders = [codecs.getincrementaldecoder("utf-8")(errors="replace") for _ in range(num_prompts)]

    def feed(self, index: int, token: int) -> None:
        if text := self.decoders[index].decode(self.vocab[token]):
            self.stream(index, text)

    def finish(self) -> None:
        """Send what was held back: an incomplete character becomes U+FFFD."""
        for index, decoder in enumerate(self.decoders):
            if text := decoder.decode(b"", final=True):
                self.stream(index, text)


@overload
def generate_text(model: BasicsTransformerLM, tokenizer: Tokenizer, prompt: str, *args, **settings) -> str: ...
@overload
def generate_text(
    model: BasicsTransformerLM, tokenizer: Tokenizer, prompt: list[str], *args, **settings
) -> list[str]: ...
def generate_text(
    model: BasicsTransformerLM,
    tokenizer: Tokenizer,
    prompt: str | list[str],
    max_length: int = 100,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    *,
    use_cache: bool = True,
    stream: Callable[[int, str], None] | None = None,
) -> str | list[str]:
    """Continue a text, or each text of a list, up to <|endoftext|> or `max_length` new tokens.

    Args:
        model: the language model.
        tokenizer: the one it was trained with.
        prompt: the text or texts. An empty text starts from <|endoftext|>, as a new document does in training.
        max_length: the most new tokens.
        temperature, top_k, top_p: as in `SamplingSettings`.
        seed: of the random draws; None draws differently each time.
        use_cache: keep keys and values of earlier tokens.
        stream: called with (prompt's index, piece of new text) as the text grows; only whole characters are sent.

    Returns:
        Prompt and continuation, a list of them for a list; <|endoftext|> is not shown.

    Raises:
        UsageError: a setting is out of range, or the tokenizer does not fit the model.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UsageError(
            f"the tokenizer has {tokenizer.vocab_size} ids, but the model knows only {model.config.vocab_size}; "
            "take the tokenizer it was trained with"
        )
    prompts = [prompt] if isinstance(prompt, str) else prompt
    encoded = [tokenizer.encode(text) for text in prompts]
    if tokenizer.eos_id is not None:
        encoded = [tokens or [tokenizer.eos_id] for tokens in encoded]
    decoder = _StreamingDecoder(tokenizer, len(prompts), stream) if stream is not None else None
    continuations = generate_tokens(
        model,
        encoded,
        max_length,
        temperature,
        top_k,
        top_p,
        seed,
        stop_id=tokenizer.eos_id,
        vocab_size=tokenizer.vocab_size,
        use_cache=use_cache,
        on_token=decoder.feed if decoder is not None else None,
    )
    if decoder is not None:
        decoder.finish()
    texts = [text + tokenizer.decode(tokens) for text, tokens in zip(prompts, continuations, strict=True)]
    return texts[0] if isinstance(prompt, str) else texts


def _need(path: Path, command: str) -> Path:
    if not path.exists():
        raise UsageError(f"{path} is not there; `{command}` makes it, or name another one")
    return path


def load_trained(checkpoint: Path, tokenizer_dir: Path, device: str = "auto") -> tuple[BasicsTransformerLM, Tokenizer]:
    """The model and the tokenizer that the training programs left.

    Args:
        checkpoint: the model's checkpoint.
        tokenizer_dir: the tokenizer's folder.
        device: as for `resolve_device`.

    Raises:
        UsageError: one of them is not there (the message says which command makes it) or cannot be read.
    """
    tokenizer = Tokenizer.from_directory(_need(tokenizer_dir, "uv run python scripts/train_bpe.py"))
    return load_model(_need(checkpoint, "uv run python cs336_basics/train.py"), device), tokenizer


def main(argv: Sequence[str] | None = None) -> None:
    """The command: print the continuation of a prompt as it is generated."""
    parser = argparse.ArgumentParser(
        description="Continue a text with a trained model.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("checkpoints/checkpoint_final.pt"), help="trained model"
    )
    parser.add_argument("--tokenizer", type=Path, default=Path("tokenizer"), help="folder of the tokenizer")
    parser.add_argument("--prompt", default="Once upon a time", help="the text to continue")
    parser.add_argument("--max_length", type=int, default=256, help="most new tokens per sample")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 takes the likeliest token each time")
    parser.add_argument("--top_k", type=int, default=None, help="sample among the k likeliest tokens; none: all")
    parser.add_argument(
        "--top_p", type=float, default=0.95, help="sample among the likeliest tokens of this total probability"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the random draws; none: different each time")
    parser.add_argument("--num_samples", type=int, default=1, help="continuations, generated together")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    arguments = parser.parse_args(argv)
    if arguments.num_samples < 1:
        raise UsageError(f"num_samples is {arguments.num_samples}; allowed are whole numbers from 1")
    model, tokenizer = load_trained(arguments.checkpoint, arguments.tokenizer, arguments.device)
    sys.stdout.reconfigure(errors="replace")  # a terminal that is not UTF-8 gets question marks, not an exception

    def show(index: int, piece: str) -> None:
        if arguments.num_samples == 1:
            print(piece, end="", flush=True)

    show(0, arguments.prompt)
    texts = generate_text(
        model,
        tokenizer,
        [arguments.prompt] * arguments.num_samples,
        arguments.max_length,
        arguments.temperature,
        arguments.top_k,
        arguments.top_p,
        arguments.seed,
        stream=show,
    )
    if arguments.num_samples == 1:
        print()
    else:
        for index, text in enumerate(texts, start=1):
            print(f"--- sample {index} of {arguments.num_samples}\n{text}")


if __name__ == "__main__":
    run_command(main)
