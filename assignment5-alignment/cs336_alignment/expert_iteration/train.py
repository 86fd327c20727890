"""The program of expert iteration: `python scripts/expert_iteration.py --help` lists every setting.

python scripts/expert_iteration.py                                                  # the small default model and task
python scripts/expert_iteration.py --parallel fsdp --processes 2                    # processes of this machine
torchrun --nproc_per_node 8 scripts/expert_iteration.py --parallel fsdp --model …   # torchrun's
"""

from collections.abc import Sequence

from cs336_alignment.expert_iteration.config import ExpertIterationConfig
from cs336_alignment.expert_iteration.trainer import ExpertIterationTrainer
from cs336_alignment.online.build import make_collector, make_replica, make_score
from cs336_alignment.online.questions import held_out_questions, training_questions
from cs336_alignment.parallel.launch import train_and_tell
from cs336_alignment.policy import load_tokenizer
from cs336_alignment.training.config import parse_config


def make_trainer(config: ExpertIterationConfig) -> ExpertIterationTrainer:
    """This process's trainer, ready for `train`.

    Raises:
        UsageError: the model, the data or the engine cannot be used, or the batch cannot be shared by the processes.
    """
    questions, held_out = training_questions(config), held_out_questions(config)
    tokenizer = load_tokenizer(config.model)
    replica = make_replica(config)
    config.check_shares(replica.world_size)
    collector = make_collector(config, replica, tokenizer)
    return ExpertIterationTrainer(config, replica, tokenizer, collector, questions, held_out, make_score(config))


def main(argv: Sequence[str] | None = None) -> None:
    """The program: train as `argv` says and print how it went."""
    config = parse_config(
        ExpertIterationConfig, argv, program="expert_iteration.py",
        description="Train a policy on those of its own responses that are right.",
    )  # fmt: skip
    train_and_tell(make_trainer, config, "expert_iteration")
