"""The tiny base model: assignment 1's tokenizer and Transformer, pretrained here, exported as a Hugging Face folder.

It has read sums, differences and markup, but neither the prompt nor calculations in tags, so it answers no prompt in
the wanted form.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm import tqdm

from cs336_alignment.default_task.made_once import make_once
from cs336_alignment.default_task.pretraining_text import generate_lines
from cs336_basics.bpe.train import train_bpe
from cs336_basics.hf_llama import export_llama
from cs336_basics.model import BasicsTransformerLM, TransformerConfig
from cs336_basics.nn_utils import clip_gradient, cross_entropy
from cs336_basics.optimizer import AdamW, get_cosine_lr
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer

DEFAULT_FOLDER = Path("models")
VOCAB_SIZE = 268
"""256 bytes, the merges that make one token of each word of the tags, and <|endoftext|>."""


@dataclass(frozen=True)
class Recipe:
    """All that determines the model.

    Attributes:
        d_model, num_layers, num_heads, d_ff: the shape; a head is 32 wide, the least that vLLM's CPU build takes.
        context_length: longer than the default task needs, so that long prompts of other tasks fit.
        steps: optimizer steps.
        batch_size: sequences in a batch.
        sequence_length: tokens in a sequence; lines are packed.
        learning_rate: at the end of the warm-up; it falls to a tenth along a cosine.
        seed: of weights and text.
    """

    d_model: int = 64
    num_layers: int = 3
    num_heads: int = 2
    d_ff: int = 192
    context_length: int = 4096
    steps: int = 2000
    batch_size: int = 16
    sequence_length: int = 64
    learning_rate: float = 3e-3
    seed: int = 0


SMOKE_RECIPE = Recipe(num_layers=2, d_ff=128, steps=60)


def ensure_default_model(folder: Path = DEFAULT_FOLDER, smoke: bool = False, progress: bool = True) -> Path:
    """The folder of the base model; it is pretrained first unless it is there already.

    Args:
        folder: where models are kept, made if it is missing.
        smoke: the model of `--smoke`: smaller, trained for seconds.
        progress: show a progress bar.

    Returns:
        A folder that `transformers` opens, below `folder`.
    """
    return ensure_model(model_folder(folder, smoke), SMOKE_RECIPE if smoke else Recipe(), progress)


def model_folder(folder: Path = DEFAULT_FOLDER, smoke: bool = False) -> Path:
    """Where the base model lies, or will lie."""
    return Path(folder) / ("smoke" if smoke else "default")


def ensure_model(folder: Path, recipe: Recipe, progress: bool = True) -> Path:
    """The model of `recipe` in `folder`, pretrained there unless that very recipe made what lies there."""
    return make_once(
        folder,
        _record(recipe),
        lambda scratch: pretrain(scratch / "model", recipe, progress),
        f"no base model in {folder}: pretraining one",
    )


def _record(recipe: Recipe) -> dict[str, object]:
    """The recipe, and a sample of the text that stands for its generator."""
    sample = "".join(islice(generate_lines(recipe.seed), 200))
    return {**asdict(recipe), "text_sha256": sha256(sample.encode()).hexdigest()}


def train_tokenizer(folder: Path) -> Tokenizer:
    """A byte-level tokenizer saved to `folder`: each tag's word is one token, each digit and operator another."""
    with tempfile.TemporaryDirectory() as scratch:
        text = Path(scratch) / "tags.txt"
        # No digits: numbers must not be merged, or sums could not be learned digit by digit.
        text.write_text("Q:\n<think> </think> <answer> </answer>\n" * 4, encoding="utf-8")
        tokenizer = Tokenizer(*train_bpe(text, VOCAB_SIZE, [END_OF_TEXT]), special_tokens=[END_OF_TEXT])
    tokenizer.save(folder)
    return tokenizer


def _batches(recipe: Recipe, tokenizer: Tokenizer) -> Iterator[Int[Tensor, "batch sequence"]]:
    """Packed lines, each token read once."""
    size = recipe.batch_size * (recipe.sequence_length + 1)
    lines = generate_lines(recipe.seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting += tokenizer.encode("".join(islice(lines, 100)))
        yield torch.tensor(waiting[:size]).view(recipe.batch_size, -1)
        del waiting[:size]


def pretrain(folder: Path, recipe: Recipe, progress: bool = True) -> Path:
    """Train a model from scratch and write it to `folder` as a Hugging Face model with its tokenizer."""
    tokenizer = train_tokenizer(folder / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = BasicsTransformerLM.from_config(
            TransformerConfig(
                vocab_size=tokenizer.vocab_size, context_length=recipe.context_length, d_model=recipe.d_model,
                num_layers=recipe.num_layers, num_heads=recipe.num_heads, d_ff=recipe.d_ff, tie_embeddings=True,
            )
        )  # fmt: skip
    optimizer = AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=0.1)
    batches = _batches(recipe, tokenizer)
    with tqdm(range(recipe.steps), desc="pretraining", unit="step", disable=not progress) as bar:
        for step in bar:
            rate = get_cosine_lr(
                step, recipe.learning_rate, recipe.learning_rate / 10, recipe.steps // 20, recipe.steps
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = next(batches)
            loss = cross_entropy(model(batch[:, :-1]), batch[:, 1:])
            optimizer.zero_grad()
            loss.backward()
            clip_gradient(model.parameters(), 1.0)
            optimizer.step()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
    return export_llama(model, folder, folder / "tokenizer")
