"""The quickstart's page: the text, the tokenizer, the curves, what the model writes, and where the time went."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from cs336.quickstart.telling import Clock
from cs336.quickstart.text import Texts
from cs336_basics.curves import plot_curves
from cs336_basics.machine import machine_description
from cs336_basics.report import Figure, Section, Table, Text, write_report
from cs336_basics.run_log import read_metrics
from cs336_basics.train import TrainConfig, TrainResult


@dataclass
class Facts:
    """What the chapters found out, for the report."""

    first_merges: list[str] = field(default_factory=list)
    longest: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    most_frequent: list[tuple[str, int]] = field(default_factory=list)
    vocab_size: int = 0
    train_tokens: int = 0
    valid_tokens: int = 0
    bytes_per_token: float = 0.0
    samples: list[str] = field(default_factory=list)


def write_quickstart_report(
    path: Path, texts: Texts, facts: Facts, result: TrainResult, config: TrainConfig, clock: Clock
) -> None:
    """Write the page to `path`."""
    curves = plot_curves(read_metrics(result.metrics_path))
    guessing, loss = math.log(facts.vocab_size), result.final_val_loss
    sections = [
        Section("What the model writes", [Text(sample, preformatted=True) for sample in facts.samples]),
        Section(
            "Training",
            [
                Text(
                    f"A model that only guesses would have a loss of ln {facts.vocab_size:,} = {guessing:.2f} nats per "
                    f"token. After {result.steps:,} steps the loss on text the model has not seen is {loss:.3f}: it "
                    f"hesitates between some {math.exp(loss):.0f} tokens instead of {facts.vocab_size:,}. In "
                    f"characters' terms this is {loss / math.log(2) / facts.bytes_per_token:.2f} bits per byte."
                ),
                Figure(curves, "Loss on training batches and on the validation part, learning rate, gradient norm."),
                Table(
                    ["", "value"],
                    [
                        ("Parameters", result.num_parameters),
                        ("Layers", config.num_layers),
                        ("d_model", config.d_model),
                        ("Heads", config.num_heads),
                        ("Context length (tokens)", config.context_len),
                        ("Batch size (sequences)", config.batch_size),
                        ("Steps", result.steps),
                        ("Tokens seen", result.tokens),
                        ("Passes over the text", result.tokens / facts.train_tokens),
                        ("Peak learning rate", config.max_lr),
                    ],
                ),
            ],
        ),
        Section(
            "Tokenizer",
            [
                Text(
                    f"{facts.vocab_size:,} tokens, learned by byte-pair encoding. A token stands for "
                    f"{facts.bytes_per_token:.2f} bytes of this text on average."
                ),
                Text("The beginning of the text, cut into tokens:\n" + " | ".join(facts.pieces), preformatted=True),
                Table(
                    ["first merges", "longest tokens", "most frequent tokens", "times"],
                    [
                        (repr(first), repr(longest), repr(frequent), times)
                        for first, longest, (frequent, times) in zip(
                            facts.first_merges, facts.longest, facts.most_frequent, strict=False
                        )
                    ],
                ),
            ],
        ),
        Section(
            "Text",
            [
                Table(
                    ["part", "bytes", "tokens"],
                    [
                        ("training", texts.train_bytes, facts.train_tokens),
                        ("validation", texts.valid_bytes, facts.valid_tokens),
                    ],
                    texts.note,
                ),
                Text(texts.beginning, preformatted=True),
            ],
        ),
        Section(
            "Time and machine",
            [
                Table(["part", "seconds"], [(part, round(seconds, 2)) for part, seconds in clock.parts.items()]),
                Table(["", ""], list(machine_description().items())),
            ],
        ),
    ]
    write_report(
        path, "CS336 quickstart", sections, f"A language model from scratch in {clock.elapsed_s / 60:.1f} minutes"
    )
