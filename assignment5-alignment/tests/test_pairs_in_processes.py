"""DPO and the reward model in two processes: data parallelism and FSDP equal one process; so do files and resuming."""

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed as dist

from cs336_alignment.parallel.processes import sharing_processes
from cs336_alignment.parallel.replica import REPLICAS
from cs336_alignment.policy import load_policy, load_trainable_policy
from cs336_alignment.preference import dpo
from cs336_alignment.preference.dpo import DPOConfig, DPOTrainer
from cs336_alignment.preference.pair_trainer import BEST_FOLDER
from cs336_alignment.preference.reference import REFERENCE_NAME, reference_log_probs, response_log_probs
from cs336_alignment.reward_model import train as reward_model
from cs336_alignment.reward_model.model import RewardModel, load_reward_model
from cs336_alignment.reward_model.train import RewardModelConfig, RewardModelTrainer
from cs336_alignment.sft import train as sft
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.training.loop import train
from cs336_alignment.training.trainer import seed_everything
from cs336_basics.command_line import UsageError
from cs336_basics.run_log import read_metrics
from cs336_systems.process_group import run_in_processes

from .preference_cases import expect_same_tensors, prepare
from .tiny_models import tiny_model

# Sums of float64 in another order; Adam's division magnifies their last digits.
FLOAT64 = {"rtol": 1e-7, "atol": 1e-9}
# The same in float32, where eps keeps Adam from magnifying them.
FLOAT32 = {"rtol": 1e-4, "atol": 1e-5}
WAYS = ("ddp", "fsdp")
# Microbatches of 3 pairs, so processes have 2 and 1 of them; 7 pairs for validation, in parts of 2 and of 1.
UNEVEN = {
    "batch_size": 6, "gradient_accumulation_steps": 2, "val_pairs": 7, "eval_batch_size": 2, "lr": 1e-2, "eps": 1e-3,
    "max_grad_norm": 0.5,
}  # fmt: skip


def whole_weights(trainer):
    """In every process."""
    return trainer.replica.gather([trainer.replica.merged_weights()])[0]


def expect_close(mine, single, tolerance):
    assert mine.keys() == single.keys()
    for name, value in single.items():
        torch.testing.assert_close(mine[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def dpo_trainer(config, tokenizer, pairs, way, reference):
    policy = load_trainable_policy(config).double()
    return DPOTrainer(config, REPLICAS[way](policy, config), tokenizer, pairs, reference)


def reward_trainer(config, tokenizer, pairs, way, reference):
    # Another head in each process: that of the first one counts.
    seed_everything(config.seed + (dist.get_rank() if way != "none" else 0))
    model = RewardModel(load_trainable_policy(config).base_model).double()
    return RewardModelTrainer(config, REPLICAS[way](model, config), tokenizer, pairs)


def check_steps_equal_those_of_one_process(folder):
    for make, config_class, changes in (
        (dpo_trainer, DPOConfig, {}),
        (dpo_trainer, DPOConfig, {"loss": "ipo", "lora_rank": 2}),
        (reward_trainer, RewardModelConfig, {"centering": 0.1}),
        (reward_trainer, RewardModelConfig, {"lora_rank": 2, "schedule": "constant"}),
    ):
        config, tokenizer, pairs = prepare(folder, config_class, **UNEVEN, **changes)
        reference = torch.linspace(-30, -20, 2 * len(pairs.pairs), dtype=torch.float64).view(-1, 2)
        alone = make(config, tokenizer, pairs, "none", reference)
        metrics = []
        for alone.step in range(3):
            metrics.append(alone.train_step())
        validated = alone.validate()
        for way in WAYS:
            together = make(config, tokenizer, pairs, way, reference)
            for together.step in range(3):
                assert together.train_step() == pytest.approx(metrics[together.step], rel=1e-6, abs=1e-9)
            expect_close(whole_weights(together), whole_weights(alone), FLOAT64)
            expect_close(together.validate(), validated, {"rtol": 1e-6, "atol": 1e-6})


def check_processes_share_the_reference(folder):
    """Each scores its part, once; the first one writes; one pair is too few to share."""
    config, _, pairs = prepare(folder, DPOConfig, eval_batch_size=2, out=f"{folder}/alone")
    alone = reference_log_probs(replace(config, out=f"{folder}/{dist.get_rank()}"), config.model, pairs.pairs, 2)
    for way in WAYS:
        spread = replace(config, parallel=way, out=f"{folder}/reference_{way}")
        processes, scored = sharing_processes(spread), []

        def counting(model, batch, chunk_tokens, scored=scored):
            scored.extend(batch.indices.tolist())
            return response_log_probs(model, batch, chunk_tokens)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cs336_alignment.preference.reference.response_log_probs", counting)
            for number in (len(pairs.pairs), 1):
                scored.clear()
                together = reference_log_probs(
                    spread, config.model, pairs.pairs[:number], 2, processes=processes, progress=False
                )
                expect_close({"": together}, {"": alone[:number]}, FLOAT32)
                assert sorted(processes.gather(scored)) == (list(range(number)) if number > 1 else [0, 0])
        if dist.get_rank() == 0:
            stored = safetensors.torch.load_file(Path(spread.out) / REFERENCE_NAME)["log_probs"]
            assert torch.equal(stored, together)
        dist.barrier()


def run_once(program, config):
    """By the first process alone; the others wait."""
    if dist.get_rank() == 0:
        program.run(config, progress=False)
    dist.barrier()


def saved_weights(folder):
    return safetensors.torch.load_file(Path(folder) / "model.safetensors")


def check_whole_runs(folder):
    """Files, the best model, and going on from the checkpoints of another number of processes."""
    for program, config_class, load in (
        (dpo, DPOConfig, load_policy),
        (reward_model, RewardModelConfig, load_reward_model),
    ):
        runs = Path(folder) / config_class.__name__
        config, _, _ = prepare(folder, config_class, **UNEVEN, num_steps=4, out=str(runs / "none"))
        config = replace(config, schedule="constant")
        run_once(program, config)
        log = read_metrics(runs / "none" / "metrics.jsonl")
        for way in WAYS:
            result = program.run(replace(config, parallel=way, out=str(runs / way)), progress=False)
            dist.barrier()
            assert result.ending == "finished"
            load(result.model, "cpu")
            for saved in ("model", BEST_FOLDER):
                expect_close(saved_weights(runs / way / saved), saved_weights(runs / "none" / saved), FLOAT32)
            for entry, single in zip(read_metrics(runs / way / "metrics.jsonl"), log, strict=True):
                assert entry.keys() == single.keys()
                # Not the accuracy: before the first step DPO's margins are 0, up to rounding.
                for key in {"step", "loss", "margin", "grad_norm", "lr", "val_loss", "val_margin"} & entry.keys():
                    assert entry[key] == pytest.approx(single[key], rel=1e-3, abs=1e-4), key
        for way, before in (("none", "fsdp"), ("ddp", "none"), ("fsdp", "ddp")):
            checkpoint, out = runs / before / "checkpoints" / "checkpoint_2.pt", runs / f"{way}_resumed"
            resumed = replace(config, parallel=way, resume_ckp=str(checkpoint), out=str(out))
            if way == "none":
                run_once(program, resumed)
            else:
                train(program.make_trainer(resumed, progress=False), progress=False)
                dist.barrier()
            expect_close(saved_weights(out / "model"), saved_weights(runs / "none" / "model"), FLOAT32)


def check_a_resumed_run_is_the_one_that_was_never_stopped(folder):
    config, _, _ = prepare(folder, DPOConfig, **UNEVEN, num_steps=4, parallel="fsdp", out=f"{folder}/exact")
    trainer = dpo.make_trainer(config, progress=False)
    train(trainer, progress=False)
    expected = whole_weights(trainer)
    resumed = dpo.make_trainer(
        replace(config, resume_ckp=f"{folder}/exact/checkpoints/checkpoint_2.pt"), progress=False
    )
    train(resumed, progress=False)
    expect_same_tensors(whole_weights(resumed), expected)


def check_fine_tuning_saves_the_whole_model(folder):
    """A model that is divided, with a tied weight, is saved as one process saves it."""
    given = {"data": f"{folder}/sft.jsonl", "model": f"{folder}/base", "batch_size": 4, "num_steps": 1, "device": "cpu"}
    if dist.get_rank() == 0:
        Path(given["data"]).write_text('{"prompt": "What is 12 + 34?", "response": " The answer is 46."}\n' * 4)
    dist.barrier()
    config = SFTConfig(**given, out=f"{folder}/sft_alone")
    run_once(sft, config)
    result = sft.run(replace(config, parallel="fsdp", out=f"{folder}/sft"), progress=False)
    dist.barrier()
    expect_close(saved_weights(result.model), saved_weights(f"{folder}/sft_alone/model"), FLOAT32)


def check_small_batches_are_refused(folder):
    config, _, _ = prepare(folder, DPOConfig, batch_size=5, gradient_accumulation_steps=3, parallel="ddp")
    with pytest.raises(UsageError, match="allowed are 1 to the batch_size, 5, divided by 2 processes"):
        dpo.make_trainer(config, progress=False)


CHECKS = (
    check_small_batches_are_refused,
    check_steps_equal_those_of_one_process,
    check_processes_share_the_reference,
    check_whole_runs,
    check_a_resumed_run_is_the_one_that_was_never_stopped,
    check_fine_tuning_saves_the_whole_model,
)


def run_checks(folder):
    """All of them in one group of processes, since starting it takes longest; the first failure ends it."""
    for check in CHECKS:
        check(folder)


@pytest.mark.slow
def test_in_two_processes(tmp_path):
    prepare(tmp_path, DPOConfig)
    tiny_model(dtype=torch.float32, tie_word_embeddings=True).save_pretrained(tmp_path / "base")
    assert run_in_processes(run_checks, 2, str(tmp_path)) == [None, None]


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(UsageError, match="head_chunk_tokens does not go with fsdp"):
        DPOConfig(parallel="fsdp", head_chunk_tokens=8)
    with pytest.raises(UsageError, match="processes is 2, which needs --parallel ddp or fsdp"):
        RewardModelConfig(processes=2)
