"""The GRPO program: `python scripts/grpo.py --help` lists every setting.

python scripts/grpo.py                                                  # the small default model and task
python scripts/grpo.py --parallel fsdp --processes 2                    # processes of this machine
torchrun --nproc_per_node 8 scripts/grpo.py --parallel fsdp --model …   # torchrun's
"""

from collections.abc import Sequence

from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.grpo.trainer import GRPOTrainer
from cs336_alignment.online.build import make_collector, make_replica, make_score
from cs336_alignment.online.questions import held_out_questions, training_questions
from cs336_alignment.parallel.launch import train_and_tell
from cs336_alignment.parallel.replica import load_frozen
from cs336_alignment.policy import load_tokenizer
from cs336_alignment.training.config import parse_config


def make_trainer(config: GRPOConfig) -> GRPOTrainer:
    """This process's trainer, ready for `train`.

    Raises:
        UsageError: the model, the data or the engine cannot be used, or the batch cannot be shared by the processes.
    """
    questions, held_out = training_questions(config), held_out_questions(config)
    tokenizer = load_tokenizer(config.model)
    replica = make_replica(config)
    config.check_shares(replica.world_size)
    reference = load_frozen(config, config.model) if config.kl_coefficient else None
    collector = make_collector(config, replica, tokenizer)
    return GRPOTrainer(config, replica, tokenizer, collector, questions, held_out, reference, make_score(config))


def main(argv: Sequence[str] | None = None) -> None:
    """The program: train as `argv` says and print how it went."""
    config = parse_config(
        GRPOConfig, argv, program="grpo.py",
        description="Train a policy by reinforcement learning on groups of its own responses.",
    )  # fmt: skip
    train_and_tell(make_trainer, config, "grpo")
