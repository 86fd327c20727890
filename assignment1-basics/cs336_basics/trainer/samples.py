"""Texts that a freshly trained model writes, for its report."""

from pathlib import Path

from cs336_basics.bpe.vocab_files import fingerprint
from cs336_basics.command_line import UsageError
from cs336_basics.generate import generate_text
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.tokenizer import Tokenizer
from cs336_basics.training_config import TrainConfig

PROMPTS = ["Once upon a time", "One day", "The little girl"]
TEMPERATURE, TOP_P, NEW_TOKENS = 0.8, 0.9, 128


def sample_texts(model: BasicsTransformerLM, config: TrainConfig, tokenizer_sha256: str | None) -> list[str]:
    """Continuations of a few prompts, prompts included.

    Args:
        model: the trained model.
        config: its settings; `tokenizer_dir` and `seed` are used.
        tokenizer_sha256: fingerprint of the tokenizer that made the training data; None if it is not known.

    Returns:
        The texts; none if `config.tokenizer_dir` holds no tokenizer, or another than the data's.
    """
    if not Path(config.tokenizer_dir).is_dir():
        return []
    try:
        tokenizer = Tokenizer.from_directory(config.tokenizer_dir)
    except UsageError:
        return []
    if tokenizer_sha256 not in (None, fingerprint(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens)):
        return []
    if tokenizer.vocab_size > model.config.vocab_size:
        return []
    return generate_text(model, tokenizer, PROMPTS, NEW_TOKENS, TEMPERATURE, top_p=TOP_P, seed=config.seed)
