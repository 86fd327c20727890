"""Training over processes: by every strategy the numbers of one process, through kills, stops and other layouts."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from cs336_basics.check_pointing import load_model, read_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.run_log import read_metrics
from cs336_basics.trainer.loop import train
from cs336_basics.trainer.trainer import DivergenceError, Trainer
from cs336_systems.parallel_training.config import ParallelTrainConfig
from cs336_systems.parallel_training.local_ranks import RankFailure, run_ranks
from cs336_systems.parallel_training.run import train_locally
from cs336_systems.parallel_training.trainer import ParallelTrainer, SystemsTrainer
from cs336_systems.process_group import run_in_processes
from cs336_systems.train import config_from_arguments, how_to_go_on

VOCAB = 41  # which no number of ranks divides
CPU = torch.device("cpu")
TINY = {
    "vocab_size": VOCAB, "d_model": 32, "num_layers": 3, "num_heads": 4, "d_ff": 48, "context_len": 16,
    "batch_size": 8, "train_steps": 6, "warm_up_it": 2, "max_lr": 0.01, "clip_grad_norm": 0.5, "val_batches": 3,
    "device": "cpu", "no_wandb": True,
}  # fmt: skip
STEPS_BEFORE = 3


@pytest.fixture(autouse=True)
def _one_thread():
    """Models this small are slower on two threads, much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _tokens(length, seed):
    return np.random.default_rng(seed).integers(VOCAB, size=length).astype(np.uint16)


TRAIN, VALID = _tokens(3000, 0), _tokens(20 * 16 + 1, 1)  # 20 windows: batches of 8, 8 and 4


def _advance(trainer, steps):
    """Loss, gradient norm and, at the end, validation loss."""
    numbers = []
    for _ in range(steps):
        outcome = trainer.train_step()
        numbers += [outcome.loss.item(), outcome.gradient_norm.item()]
    return [*numbers, trainer.evaluate()]


def _make(trainer_class, settings):
    config = ParallelTrainConfig(**{**TINY, **settings})
    return trainer_class(config, config.model_config(VOCAB), TRAIN, VALID)


def _train_each(cases, folder):
    """In a rank: train every case, and save it half way and at the end; then go on from the half-way checkpoint of the
    case before. Returns the numbers of each whole run and of each continued one."""
    numbers = {}
    for index, (name, settings) in enumerate(cases.items()):
        trainer = _make(ParallelTrainer, settings)
        first = _advance(trainer, STEPS_BEFORE)
        trainer.save(folder / f"{name}_half.pt", note="kept")
        numbers[name] = first + _advance(trainer, TINY["train_steps"] - STEPS_BEFORE)
        trainer.save(folder / f"{name}_end.pt")
        if index:
            dist.barrier()  # rank 0 has written
            continued = _make(ParallelTrainer, settings)
            assert continued.restore(folder / f"{list(cases)[index - 1]}_half.pt")["note"] == "kept"
            numbers[f"{name} continued"] = _advance(continued, TINY["train_steps"] - STEPS_BEFORE)
    return numbers


def _check_cases(cases, processes, tmp_path, reference_settings=None, tolerance=2e-5):
    """Numbers and checkpoints of every case are those of assignment 1's trainer in one process."""
    single = _make(Trainer, reference_settings or {})
    expected = _advance(single, STEPS_BEFORE)
    rest = _advance(single, TINY["train_steps"] - STEPS_BEFORE)
    single.save(tmp_path / "single.pt")
    reference = read_checkpoint(tmp_path / "single.pt")
    for numbers in run_in_processes(_train_each, processes, cases, tmp_path):
        for name in cases:
            assert numbers[name] == pytest.approx(expected + rest, rel=tolerance), name
            if f"{name} continued" in numbers:
                assert numbers[f"{name} continued"] == pytest.approx(rest, rel=tolerance), name
    for name in cases:
        end = read_checkpoint(tmp_path / f"{name}_end.pt")
        assert end.keys() == reference.keys()
        assert end["optimizer_state_dict"]["param_groups"] == reference["optimizer_state_dict"]["param_groups"]
        assert end["data_state"] == reference["data_state"]
        assert torch.equal(end["random_state"]["torch"], reference["random_state"]["torch"])
        torch.testing.assert_close(end["model_state_dict"], reference["model_state_dict"], rtol=1e-3, atol=2e-5)
        torch.testing.assert_close(
            end["optimizer_state_dict"]["state"], reference["optimizer_state_dict"]["state"], rtol=1e-3, atol=2e-5
        )
        # Assignment 1's own trainer goes on from it, and its loader opens it.
        continued = _make(Trainer, reference_settings or {})
        continued.restore(tmp_path / f"{name}_half.pt")
        assert _advance(continued, TINY["train_steps"] - STEPS_BEFORE) == pytest.approx(rest, rel=tolerance), name
        assert load_model(tmp_path / f"{name}_end.pt", "cpu").config == single.model_config


@pytest.mark.slow
def test_two_processes_train_as_one_by_every_strategy(tmp_path):
    """Including gradient accumulation, which a single process does not use here."""
    cases = {
        name: {"parallel": name, **extra}
        for name, extra in {
            "ddp-naive": {},
            "ddp-flat": {"gradient_accumulation_steps": 2},
            "ddp": {"gradient_accumulation_steps": 4, "checkpoint_blocks": 2, "attention": "flash"},
            "ddp-bucketed": {"bucket_size_mb": 0.01},
            "zero1": {"fused": True},
            "fsdp": {"gradient_accumulation_steps": 2},
            "tp": {},
            "pp": {"microbatches": 4},
        }.items()
    }
    # What accumulates measures validation in smaller batches, of as many windows in all.
    for settings in cases.values():
        settings["val_batches"] = 3 * settings.get("gradient_accumulation_steps", 1)
    _check_cases(cases, 2, tmp_path)


@pytest.mark.slow
def test_four_processes_train_as_one_in_two_dimensions(tmp_path):
    tied = {"tie_embeddings": True, "qk_norm": True}
    cases = {
        "ddp_tp": {"parallel": "ddp", "tensor": 2},
        "zero1_tp": {"parallel": "zero1", "tensor": 2},
        "ddp_pp": {"parallel": "ddp", "pipeline": 2, "schedule": "gpipe"},
        "zero1_pp": {"parallel": "zero1", "pipeline": 2, "microbatches": 2},
        "tp_pp": {"parallel": "tp", "pipeline": 2},
        "fsdp": {"parallel": "fsdp"},
    }
    _check_cases({name: {**case, **tied} for name, case in cases.items()}, 4, tmp_path, tied)


def _stop_on_nan(folder):
    """A NaN that only rank 1 has ends the step on every rank; and nothing is saved of it."""
    found = []
    for parallel in ("ddp", "fsdp", "tp", "pp"):
        trainer = _make(ParallelTrainer, {"parallel": parallel})
        trainer.train_step()
        if dist.get_rank() == 1:
            with torch.no_grad():
                next(p for group in trainer.optimizer.param_groups for p in group["params"] if p.numel()).fill_(np.nan)
        with pytest.raises(DivergenceError, match="became nan"):
            trainer.train_step()
        assert trainer.step == 1
        if parallel != "ddp":  # there, what is saved is rank 0's copy
            with pytest.raises(DivergenceError, match=r"weights or moments of .* became NaN"):
                trainer.save(folder / f"{parallel}.pt")
        found.append(trainer.agree(dist.get_rank() == 1, False, True))
    bf16 = {}
    for parallel in ("ddp", "fsdp", "tp", "pp"):
        trainer = _make(ParallelTrainer, {"parallel": parallel, "dtype": "bfloat16"})
        bf16[parallel] = _advance(trainer, TINY["train_steps"])
    return found, bf16


@pytest.mark.slow
def test_a_nan_on_one_rank_stops_all_and_bf16_is_near(tmp_path):
    (found, bf16), (_, on_rank_one) = run_in_processes(_stop_on_nan, 2, tmp_path)
    assert found == [[True, False, True]] * 4
    assert not list(tmp_path.iterdir())
    single = _advance(_make(Trainer, {"dtype": "bfloat16"}), TINY["train_steps"])
    for parallel, numbers in bf16.items():
        assert numbers[0::2] == pytest.approx(single[0::2], rel=0.02), parallel
        assert on_rank_one[parallel] == pytest.approx(numbers)


# Runs in processes of their own. The learning rate is constant, so that a run's length does not change its steps.
FLAGS = [
    "--data_dir", "data", "--vocab_size", str(VOCAB), "--d_model", "32", "--num_layers", "2", "--num_heads", "2",
    "--context_len", "16", "--batch_size", "8", "--warm_up_it", "0", "--min_lr", "0.001", "--save_intervals", "5",
    "--log_intervals", "1", "--val_interval", "1000000", "--val_batches", "1", "--device", "cpu", "--no_wandb",
]  # fmt: skip
ENDLESS = ["--train_steps", "1000000"]
PROGRAM = Path(__file__).parents[1] / "scripts" / "train.py"


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("data").mkdir()
    TRAIN.tofile("data/train.dat")
    VALID.tofile("data/valid.dat")
    return tmp_path


def _wait_for_step(step, still_running):
    """Wait until the run has logged the step; there is no end that it could reach before."""
    deadline = time.monotonic() + 300
    metrics = Path("run/metrics.jsonl")
    while time.monotonic() < deadline:
        if metrics.exists() and (entries := read_metrics(metrics)) and entries[-1]["step"] >= step:
            return
        assert still_running(), f"the run ended before step {step}"
        time.sleep(0.02)
    raise AssertionError(f"step {step} was not reached in time")


def _config(*flags):
    return config_from_arguments([*FLAGS, "--run_dir", "run", "--save_ckp_path", "run", *flags])


@pytest.mark.slow
def test_a_killed_rank_ends_the_run_and_it_goes_on_elsewhere_to_the_same_losses(run_folder):
    """SIGKILL under ddp, resume under zero1 and Ctrl-C, resume under torchrun and fsdp: one run's losses throughout."""
    over = threading.Event()

    def kill_rank_one(pids):
        def wait_and_kill():
            _wait_for_step(12, lambda: not over.is_set())
            os.kill(pids[1], signal.SIGKILL)

        threading.Thread(target=wait_and_kill).start()

    config = _config("--parallel", "ddp", "--processes", "2", *ENDLESS)
    with pytest.raises(RankFailure, match=r"^rank 1 \(process \d+\) was killed by SIGKILL"):
        train_locally(config, progress=False, on_start=kill_rank_one)
    over.set()
    assert "--resume_ckp latest --save_ckp_path run" in how_to_go_on(config)
    killed_at = read_metrics("run/metrics.jsonl")[-1]["step"]

    process = subprocess.Popen(
        [sys.executable, PROGRAM, "--resume_ckp", "latest", "--save_ckp_path", "run", "--parallel", "zero1"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    _wait_for_step(killed_at + 7, lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    command = output.strip().splitlines()[-1]
    stopped_at = int(re.search(r"stopped after step (\d+) as asked; go on with: .*checkpoint_\1\.pt", command)[1])
    assert read_checkpoint(f"run/checkpoint_{stopped_at}.pt")["iteration"] == stopped_at > killed_at

    end = stopped_at + 4
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", PROGRAM,
         "--resume_ckp", f"run/checkpoint_{stopped_at}.pt", "--parallel", "fsdp", "--train_steps", str(end)],
        check=True, capture_output=True,
    )  # fmt: skip
    entries = read_metrics("run/metrics.jsonl")
    undisturbed = train(
        replace(_config("--train_steps", str(end)), run_dir="whole", save_ckp_path="whole"), progress=False,
        trainer_class=SystemsTrainer,
    )  # fmt: skip
    expected = read_metrics(undisturbed.metrics_path)
    assert [entry["step"] for entry in entries] == list(range(end + 1))
    for name in ("train_loss", "grad_norm"):
        assert [e[name] for e in entries[1:]] == pytest.approx([e[name] for e in expected[1:]], rel=1e-4)
    assert Path("run/report.html").exists()
    assert read_checkpoint("run/checkpoint_final.pt")["iteration"] == end
    assert not list(Path("run").glob(".*"))


def _fail_on_rank_one(kind):
    if dist.get_rank() == 1:
        raise kind("rank one cannot")
    dist.barrier()


@pytest.mark.slow
def test_the_rank_that_failed_is_named_not_those_that_lost_it():
    with pytest.raises(
        RankFailure, match=r"(?s)^rank 1 \(process \d+\) failed: ArithmeticError: rank one cannot.*Traceback"
    ):
        run_ranks(_fail_on_rank_one, 2, ArithmeticError, device=CPU, num_threads=1)
    with pytest.raises(UsageError, match=r"^rank one cannot$"):
        run_ranks(_fail_on_rank_one, 2, UsageError, device=CPU, num_threads=1)


def test_without_parallel_it_is_assignment_1_s_trainer(run_folder):
    """One process, the same numbers bit for bit, and this package's own pieces to rounding."""
    ours = train_locally(_config("--train_steps", "3"), progress=False)
    plain = train(replace(_config("--train_steps", "3"), run_dir="plain", save_ckp_path="plain"), progress=False)
    states = [read_checkpoint(result.checkpoint_path)["model_state_dict"] for result in (ours, plain)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    other = _config("--train_steps", "3", "--attention", "plain", "--checkpoint_blocks", "1", "--fused")
    assert train_locally(other, progress=False).final_val_loss == pytest.approx(ours.final_val_loss, rel=1e-5)


@pytest.mark.parametrize(
    ("flags", "processes", "sizes", "data_strategy"),
    [
        ({"parallel": "ddp"}, 4, (4, 1, 1), "ddp"),
        ({"parallel": "fsdp"}, 2, (2, 1, 1), "fsdp"),
        ({"parallel": "tp"}, 2, (1, 1, 2), "ddp"),
        ({"parallel": "pp", "data": 2}, 4, (2, 2, 1), "ddp"),
        ({"parallel": "zero1", "tensor": 2}, 8, (4, 1, 2), "zero1"),
        ({"parallel": "ddp", "tensor": 2, "pipeline": 2}, 8, (2, 2, 2), "ddp"),
        ({"parallel": "none"}, 1, (1, 1, 1), "ddp"),
    ],
)
def test_layouts(flags, processes, sizes, data_strategy):
    layout = ParallelTrainConfig(batch_size=8, **flags).layout(processes)
    assert tuple(layout.sizes.values()) == sizes
    assert layout.data_strategy == data_strategy


@pytest.mark.parametrize(
    ("flags", "processes", "named"),
    [
        ({"parallel": "none"}, 2, "2 processes need a strategy"),
        ({"parallel": "ddp", "tensor": 2}, 3, "3 processes cannot be divided by the sizes given, 2 together"),
        ({"parallel": "ddp", "data": 2}, 4, "needs 2 processes, but there are 4"),
        ({"parallel": "ddp"}, 3, "batch_size 8 cannot be shared by 3 data-parallel copies"),
        ({"parallel": "ddp", "gradient_accumulation_steps": 8}, 2, "allowed is a multiple of 16"),
        ({"parallel": "pp", "microbatches": 3}, 2, "microbatches is 3; allowed are the divisors of a copy's 8"),
        ({"parallel": "fsdp", "tensor": 2}, 4, "fsdp shards whole layers"),
        ({"parallel": "ddp-flat", "pipeline": 2}, 4, "allowed are ddp and zero1, not ddp-flat"),
        ({"parallel": "pp", "checkpoint_blocks": 1}, 2, "checkpoint_blocks does not go with a pipeline"),
        ({"parallel": "tp", "compile": True}, 2, "compile goes with none, ddp-naive"),
        ({"parallel": "fsdp", "fused": True}, 2, "fused goes with none, ddp-naive"),
        ({"parallel": "ddp", "fused": True, "compile": True}, 2, "fused does not go with compile"),
    ],
)
def test_what_does_not_go_together_is_named(flags, processes, named):
    with pytest.raises(UsageError, match=named):
        ParallelTrainConfig(batch_size=8, **flags).layout(processes)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"tensor": 0}, "tensor is 0"),
        ({"processes": -1}, "processes is -1"),
        ({"parallel": "magic"}, "parallel is 'magic'; allowed are none, ddp-naive"),
        ({"attention": "fast"}, "attention is 'fast'; allowed are plain, tiled, flash"),
        ({"checkpoint_blocks": 9}, "checkpoint_blocks is 9; allowed are 1 to 4"),
        ({"microbatches": 2}, "there is no pipeline"),
    ],
)
def test_bad_values_are_named(flags, named):
    with pytest.raises(UsageError, match=named):
        ParallelTrainConfig(**flags)


def test_how_many_processes_are_started():
    assert ParallelTrainConfig().local_processes(CPU) == 1
    assert ParallelTrainConfig(parallel="ddp").local_processes(CPU) == 2
    assert ParallelTrainConfig(parallel="ddp", tensor=2).local_processes(CPU) == 4
    assert ParallelTrainConfig(parallel="ddp", data=3, tensor=2).local_processes(CPU) == 6
    assert ParallelTrainConfig(parallel="ddp", processes=5).local_processes(CPU) == 5


def test_a_layout_is_taken_over_whole_or_not_at_all(run_folder):
    """From a checkpoint of assignment 1 too."""
    single = train(_config("--train_steps", "1"), progress=False, trainer_class=SystemsTrainer)
    assert config_from_arguments(["--resume_ckp", str(single.checkpoint_path)]).parallel == "none"
    stored = ParallelTrainConfig(parallel="ddp", tensor=2, processes=4, attention="plain").to_dict()
    assert ParallelTrainConfig.inherited(stored, {})["tensor"] == 2
    again = ParallelTrainConfig.inherited(stored, {"parallel": "fsdp"})
    assert "tensor" not in again
    assert "processes" not in again
    assert again["attention"] == "plain"
