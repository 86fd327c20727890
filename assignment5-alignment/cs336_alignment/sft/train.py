"""The program of supervised fine-tuning (`scripts/sft.py`)."""

from collections.abc import Callable, Sequence

from tqdm import tqdm

from cs336_alignment.online.build import make_collector, make_replica
from cs336_alignment.parallel.launch import run_and_tell
from cs336_alignment.policy import load_tokenizer
from cs336_alignment.sft.answers import AnswerCheck
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.sft.sources import evaluation_questions, training_examples, validation_examples
from cs336_alignment.sft.trainer import SFTTrainer
from cs336_alignment.training.config import parse_config
from cs336_alignment.training.loop import TrainingResult, train


def make_trainer(config: SFTConfig, say: Callable[[str], None] = lambda message: None) -> SFTTrainer:
    """The trainer that the settings ask for; `say` is told what is left out of the data.

    Raises:
        UsageError: the model, the data or the device cannot be used.
    """
    tokenizer = load_tokenizer(config.model)
    examples = training_examples(config, tokenizer, say), validation_examples(config, tokenizer)
    questions = evaluation_questions(config)
    replica = make_replica(config)
    answers = None
    if questions:
        answers = AnswerCheck(config, replica, tokenizer, make_collector(config, replica, tokenizer), questions)
    return SFTTrainer(config, replica, tokenizer, *examples, answers)


def run(config: SFTConfig, progress: bool = True) -> TrainingResult:
    """Fine-tune as the settings say; `config.out` names the run's folder."""
    return train(make_trainer(config, tqdm.write if progress else lambda message: None), progress=progress)


def main(argv: Sequence[str] | None = None) -> None:
    """The program."""
    config = parse_config(
        SFTConfig,
        argv,
        program="sft.py",
        description="Supervised fine-tuning of a language model on prompts and responses.",
    )
    run_and_tell(run, config, "sft", "scripts/sft.py")
