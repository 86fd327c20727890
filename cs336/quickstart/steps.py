"""The quickstart's chapters. The work is done by `cs336_basics`; here it is sized to the time there is, and told."""

import json
import warnings
from pathlib import Path

import numpy as np

from cs336.quickstart.plan import choose_threads, make_plan
from cs336.quickstart.report import Facts, write_quickstart_report
from cs336.quickstart.telling import Clock, Teller
from cs336.quickstart.text import Texts, split_text, write_default_text
from cs336_basics.atomic_file import atomic_write
from cs336_basics.bpe import train_bpe
from cs336_basics.bpe.vocab_files import OWN_FILE
from cs336_basics.check_pointing import latest_good_checkpoint, load_model
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device
from cs336_basics.generate import generate_text
from cs336_basics.token_file import encode_file, load_tokens
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer
from cs336_basics.train import TrainConfig, TrainResult, train

VOCAB_SIZE = 2048
BYTES_PER_MERGE = 100
"""A short text gets a smaller vocabulary: each merge should have been worth its while."""
SHOWN = 10
"""Tokens of each kind that are shown."""
SAMPLE_TOKENS, TEMPERATURE, TOP_P = 200, 0.7, 0.9


class Workshop:
    """The folder of one quickstart and the chapters that fill it, in their order."""

    def __init__(
        self, out: Path, minutes: float, device: str, seed: int, clock: Clock, teller: Teller, resumed: bool
    ) -> None:
        self.out, self.minutes, self.seed = out, minutes, seed
        self.clock, self.teller, self.resumed = clock, teller, resumed
        self.device = str(resolve_device(device))
        self.texts: Texts
        self.tokenizer: Tokenizer
        self.facts = Facts()
        self.config: TrainConfig
        self.result: TrainResult

    def prepare_text(self, text: Path | None) -> None:
        """Chapter 1: generated stories, or the user's text, in two parts."""
        self.clock.lap("start")
        self.teller.chapter("1. The text", "A language model learns to continue text. So first there must be some.")
        folder = self.out / "text"
        if text is None:
            self.texts = write_default_text(folder, self.minutes, self.seed)
            self.teller.say("No --text was given: simple stories, written by a grammar from the seed.")
        else:
            self.texts = split_text(text, folder, self.minutes)
        self.teller.say(
            f"{self.texts.note}; {self.texts.train_bytes:,} bytes to learn from, and {self.texts.valid_bytes:,} that "
            "the model never sees in training, to test it on. It begins:"
        )
        self.teller.say(self.texts.beginning, style="italic cyan")
        self.clock.lap("text")

    def train_tokenizer(self) -> None:
        """Chapter 2: byte-pair encoding."""
        self.teller.chapter(
            "2. The tokenizer",
            "Byte-pair encoding starts from single bytes and again and again joins the most frequent pair of "
            "neighbors into a new token, until the vocabulary is full. Frequent words become one token.",
        )
        folder = self.out / "tokenizer"
        if not (self.resumed and (folder / OWN_FILE).is_file()):  # the file that is written last
            size = min(VOCAB_SIZE, 257 + self.texts.train_bytes // BYTES_PER_MERGE)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                vocab, merges = train_bpe(self.texts.train, size, [END_OF_TEXT], progress=True)
            for warning in caught:
                self.teller.say(str(warning.message))
            Tokenizer(vocab, merges, [END_OF_TEXT]).save(folder)
        self.tokenizer = Tokenizer.from_directory(folder)
        first = self.texts.beginning[:60].rsplit(" ", 1)[0]
        self.facts.pieces = [self.tokenizer.decode([token]) for token in self.tokenizer.encode(first)]
        self.facts.first_merges = [
            (left + right).decode(errors="replace") for left, right in self.tokenizer.merges[:12]
        ]
        self.facts.longest = _longest_tokens(self.tokenizer)
        self.facts.vocab_size = self.tokenizer.vocab_size
        seconds = self.clock.lap("tokenizer training")
        self.teller.say(f"{self.tokenizer.vocab_size:,} tokens, learned in {seconds:.1f} s.")
        self.teller.say(f"The first merges: {' '.join(map(repr, self.facts.first_merges))}")
        self.teller.say(f"The longest tokens: {' '.join(map(repr, self.facts.longest))}")
        self.teller.say(f"The text's beginning in tokens: {'|'.join(self.facts.pieces)}")

    def encode(self) -> None:
        """Chapter 3: the texts as files of token ids."""
        self.teller.chapter("3. From text to numbers", "Both parts of the text become files of token ids.")
        info = encode_file(self.tokenizer, self.texts.train, self.out / "data" / "train.dat")
        valid = encode_file(self.tokenizer, self.texts.valid, self.out / "data" / "valid.dat")
        self.facts.train_tokens, self.facts.valid_tokens = info.num_tokens, valid.num_tokens
        self.facts.bytes_per_token = info.bytes_per_token
        self.teller.say(f"{info.summary()} ({info.dtype}).")
        self.clock.lap("encoding")

    def plan(self) -> None:
        """Chapter 4: a model and a number of steps that fit into the time."""
        self.teller.chapter(
            "4. The model",
            "A Transformer: embeddings, blocks of causal self-attention (rotary positions) and a SwiGLU "
            "feed-forward layer, RMSNorm before each, and a score for every possible next token.",
        )
        if self.device == "cpu":
            choose_threads()
        path = self.out / "plan.json"
        if self.resumed and path.is_file():
            self.config = TrainConfig(**json.loads(path.read_text(encoding="utf-8")))
        else:
            tokens = self.facts.train_tokens, self.facts.valid_tokens
            self.config, step_seconds = make_plan(
                self.out, self.tokenizer.vocab_size, *tokens, self.device, self.seed, self.clock
            )
            with atomic_write(path, "w") as file:
                json.dump(self.config.to_dict(), file, indent=1)
            self.teller.say(f"One step takes {1000 * step_seconds:.0f} ms here, on {self.device}.")
        config = self.config
        self.teller.say(
            f"{config.num_layers} layers, d_model {config.d_model}, {config.num_heads} heads, context "
            f"{config.context_len} tokens. It gets {config.train_steps:,} steps of {config.batch_size} x "
            f"{config.context_len} tokens: what the time and the length of the text allow."
        )
        self.clock.lap("planning")

    def train(self) -> None:
        """Chapter 5: training, resumed where an earlier run was stopped.

        Raises:
            KeyboardInterrupt: the user stopped it.
            SystemExit: it diverged.
        """
        self.teller.chapter(
            "5. Training",
            "Each step shows the model a batch of text, asks for every next token, and moves the weights a "
            "little so that the right ones become more probable (AdamW). The loss is in nats per token.",
        )
        config = self.config
        if self.resumed:
            try:
                path, _ = latest_good_checkpoint(config.save_ckp_path)
                config = TrainConfig(**{**config.to_dict(), "resume_ckp": str(path)})
            except UsageError:
                pass  # it was stopped before the first checkpoint
        self.result = train(config)
        if self.result.interrupted:
            raise KeyboardInterrupt
        if self.result.diverged:
            self.teller.say(f"{self.result.message}. Another --seed may do.", style="bold red")
            raise SystemExit(1)
        self.teller.say(
            f"{self.result.num_parameters / 1e6:.2f} M parameters after {self.result.steps:,} steps and "
            f"{self.result.tokens:,} tokens: validation loss {self.result.final_val_loss:.3f}."
        )
        self.clock.lap("training")

    def write(self) -> None:
        """Chapter 6: the model continues a few beginnings."""
        self.teller.chapter("6. The model writes", "Token by token, each drawn from what the model thinks likely.")
        model = load_model(self.result.checkpoint_path, self.device)
        for number, prompt in enumerate(self.texts.prompts):
            self.teller.console.print()
            self.teller.console.print(prompt, style="bold", end="", markup=False)
            sample = generate_text(
                model, self.tokenizer, prompt, SAMPLE_TOKENS, TEMPERATURE, top_p=TOP_P, seed=self.seed + number,
                stream=lambda index, piece: self.teller.stream(piece),
            )  # fmt: skip
            self.facts.samples.append(sample)
            self.teller.stream("\n")
        self.clock.lap("writing")

    def report(self) -> Path:
        """Chapter 7: everything on one page."""
        path = self.out / "report.html"
        tokens = load_tokens(self.out / "data" / "train.dat")
        self.facts.most_frequent = _most_frequent(self.tokenizer, tokens)
        write_quickstart_report(path, self.texts, self.facts, self.result, self.config, self.clock)
        return path


def _longest_tokens(tokenizer: Tokenizer) -> list[str]:
    words = [token for number, token in tokenizer.vocab.items() if number not in tokenizer.special_ids]
    return [token.decode(errors="replace") for token in sorted(words, key=lambda token: (-len(token), token))[:SHOWN]]


def _most_frequent(tokenizer: Tokenizer, tokens: np.ndarray) -> list[tuple[str, int]]:
    counts = np.bincount(tokens, minlength=tokenizer.vocab_size)
    most = np.argsort(-counts, kind="stable")[:SHOWN].tolist()
    return [(tokenizer.decode([token]), int(counts[token])) for token in most]
