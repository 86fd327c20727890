"""Texts that a freshly trained model writes, for its report."""

from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_basics.generate import generate_text
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.tokenizer import Tokenizer
from cs336_basics.training_config import TrainConfig

PROMPTS = ["Once upon a time", "One day", "The little girl"]
TEMPERATURE, TOP_P, NEW_TOKENS = 0.8, 0.9, 128


def sample_texts(model: BasicsTransformerLM, config: TrainConfig) -> list[str]:
    """Continuations of a few prompts, prompts included.

    Empty if `config.tokenizer_dir` holds no tokenizer, or one whose ids do not fit the model.
    """
    if not Path(config.tokenizer_dir).is_dir():
        return []
    try:
        tokenizer = Tokenizer.from_directory(config.tokenizer_dir)
    except UsageError:
        return []
    if tokenizer.vocab_size > model.config.vocab_size:
        return []
    return generate_text(model, tokenizer, PROMPTS, NEW_TOKENS, TEMPERATURE, top_p=TOP_P, seed=config.seed)
