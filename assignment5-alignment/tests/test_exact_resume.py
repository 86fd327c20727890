"""Runs that are killed or stopped, and resumed: the end is bit for bit that of a run that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cs336_alignment.policy import save_policy
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.sft.train import main, make_trainer, run
from cs336_alignment.training.config import config_from_settings
from cs336_alignment.training.loop import tell, train, with_folder
from cs336_basics.check_pointing import checkpoints_newest_first, read_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.run_log import read_metrics

from .tiny_models import tiny_model, tiny_tokenizer

STEPS = 8
# Runs the program until half of a step's checkpoint is written, tells so and waits.
DRIVER = """
import json, sys, torch
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.sft.train import run
from cs336_alignment.training.config import config_from_settings

torch.set_num_threads(1)
settings, step = json.loads(sys.argv[1]), int(sys.argv[2])
save = torch.save

def half_save(checkpoint, file):
    if checkpoint["iteration"] == step:
        file.write(b"half a checkpoint")
        file.flush()
        print("now", flush=True)
        sys.stdin.read()
    save(checkpoint, file)

torch.save = half_save
run(config_from_settings(SFTConfig, settings), progress=False)
"""


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are ordered by the number of threads; a run is repeatable only with the same one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings(tmp_path):
    """A run in which everything random takes part: data order, dropout of adapters, sampled evaluations."""
    save_policy(tiny_model(dtype=torch.float32), tiny_tokenizer(), tmp_path / "tiny")
    pairs = [{"prompt": f"Question {n}?", "response": f" {n} </answer>"} for n in range(7)]
    questions = [{"prompt": f"Question {n}?", "answer": str(n)} for n in range(3)]
    for name, records in (("data", pairs), ("questions", questions)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return {
        "model": str(tmp_path / "tiny"),
        "data": str(tmp_path / "data.jsonl"),
        "val_data": str(tmp_path / "data.jsonl"),
        "eval_data": str(tmp_path / "questions.jsonl"),
        "eval_temperature": 1.0,
        "max_tokens": 5,
        "num_steps": STEPS,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "eval_every": 3,
        "save_every": 2,
        "lora_rank": 2,
        "lora_dropout": 0.2,
        "warmup_steps": 2,
        "device": "cpu",
    }


def kill_while_saving(settings, step):
    """Run in a process of its own until it says that it is saving a step's checkpoint, and kill it there."""
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(settings), str(step)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout.readline() == "now\n"
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def numbers(folder, name):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in read_metrics(folder / name)]


def assert_same(a, b, where=""):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}/{index}")
    else:
        assert a == b, where


def assert_same_run(folder, other):
    ends = [read_checkpoint(each / "checkpoints" / f"checkpoint_{STEPS}.pt") for each in (folder, other)]
    for end in ends:
        del end["seconds"], end["wandb_id"], end["last_evaluation"]["seconds"], end["training_config"]["out"]
    assert_same(*ends)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert numbers(folder, name) == numbers(other, name)
    for file in (folder / "model").iterdir():
        assert file.read_bytes() == (other / "model" / file.name).read_bytes()


@pytest.mark.slow
def test_killed_while_saving(tmp_path, settings):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    kill_while_saving({**settings, "out": str(broken)}, 6)
    assert [path.name for path in checkpoints_newest_first(broken / "checkpoints")] == [
        "checkpoint_4.pt",
        "checkpoint_2.pt",
    ]
    assert len(list((broken / "checkpoints").glob(".*.tmp"))) == 1
    assert read_metrics(broken / "metrics.jsonl")[-1]["step"] > 4  # logged, and yet behind the checkpoint
    result = run(config_from_settings(SFTConfig, {"resume_ckp": "latest", "out": str(broken)}), progress=False)
    assert result.ending == "finished"
    assert sorted(path.name for path in (broken / "checkpoints").iterdir()) == ["checkpoint_6.pt", "checkpoint_8.pt"]
    run(SFTConfig(**settings, out=str(whole)), progress=False)
    assert_same_run(broken, whole)


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_leaves_a_checkpoint_and_a_sentence(tmp_path, settings, capsys, signal_number):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"

    def ask(entry):
        if entry["step"] == 2:
            os.kill(os.getpid(), signal_number)

    trainer = make_trainer(SFTConfig(**settings, out=str(stopped)))
    result = train(trainer, progress=False, on_step=ask)
    assert (result.ending, result.steps, result.model) == ("interrupted", 3, None)
    with pytest.raises(SystemExit) as ending:
        tell(result, "scripts/sft.py")
    assert ending.value.code == 130
    sentence = capsys.readouterr().out.strip()
    assert sentence == (
        "stopped after step 3 as asked; go on with: uv run python scripts/sft.py --resume_ckp "
        f"{stopped}/checkpoints/checkpoint_3.pt"
    )
    main(sentence.partition("scripts/sft.py ")[2].split())  # exactly what it says
    run(SFTConfig(**settings, out=str(whole)), progress=False)
    assert_same_run(stopped, whole)


def test_flags_given_anew_count_and_a_longer_run_goes_on(tmp_path, settings):
    folder = tmp_path / "run"
    run(SFTConfig(**{**settings, "num_steps": 2}, out=str(folder)), progress=False)
    path = str(folder / "checkpoints" / "checkpoint_2.pt")
    config = config_from_settings(SFTConfig, {"resume_ckp": path, "num_steps": 4, "lr": 0.5, "schedule": "constant"})
    assert config.data == settings["data"]
    config = with_folder(config, "sft")
    assert config.out == str(folder)
    run(config, progress=False)
    entries = [entry for entry in read_metrics(folder / "metrics.jsonl") if "lr" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert [entry["lr"] for entry in entries[2:]] == [0.5, 0.5]


def test_what_cannot_be_resumed_is_said(tmp_path, settings):
    folder = tmp_path / "run"
    run(SFTConfig(**{**settings, "num_steps": 2}, out=str(folder)), progress=False)
    path = folder / "checkpoints" / "checkpoint_2.pt"
    with pytest.raises(UsageError, match="give its folder with --out"):
        config_from_settings(SFTConfig, {"resume_ckp": "latest"})
    with pytest.raises(UsageError, match="no readable checkpoint"):
        config_from_settings(SFTConfig, {"resume_ckp": "latest", "out": str(tmp_path / "nothing")})
    with pytest.raises(UsageError, match="holds another model"):
        run(config_from_settings(SFTConfig, {"resume_ckp": str(path), "lora_rank": 3}), progress=False)
    with pytest.raises(UsageError, match="num_steps is 1, but"):
        run(config_from_settings(SFTConfig, {"resume_ckp": str(path), "num_steps": 1}), progress=False)
    checkpoint = read_checkpoint(path)
    torch.save({**checkpoint, "program": "dpo"}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match="not of sft, but of dpo"):
        run(config_from_settings(SFTConfig, {"resume_ckp": str(tmp_path / "other.pt")}), progress=False)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(UsageError, match="truncated"):
        config_from_settings(SFTConfig, {"resume_ckp": str(path)})


def test_a_diverging_run_says_so_and_keeps_its_last_good_checkpoint(tmp_path, settings, capsys):
    config = SFTConfig(**{**settings, "save_every": 1}, out=str(tmp_path / "run"))
    trainer = make_trainer(config)

    def spoil(entry):
        if entry["step"] == 2:
            next(trainer.replica.module.parameters()).data.fill_(float("nan"))

    result = train(trainer, progress=False, on_step=spoil)
    assert result.ending == "diverged"
    assert result.checkpoint.name == "checkpoint_2.pt"
    assert all(value.isfinite().all() for value in read_checkpoint(result.checkpoint)["model_state_dict"].values())
    with pytest.raises(SystemExit) as ending:
        tell(result, "scripts/sft.py")
    assert ending.value.code == 1
    assert "diverged after 2 steps: the loss became nan" in capsys.readouterr().err


def test_a_new_run_in_the_folder_of_an_old_one_replaces_it(tmp_path, settings):
    folder = tmp_path / "run"
    run(SFTConfig(**{**settings, "num_steps": 4}, out=str(folder)), progress=False)
    run(SFTConfig(**{**settings, "num_steps": 2}, out=str(folder)), progress=False)
    assert [path.name for path in checkpoints_newest_first(folder / "checkpoints")] == ["checkpoint_2.pt"]
    assert read_metrics(folder / "metrics.jsonl")[-1]["step"] == 2
    assert Path(folder / "model" / "config.json").is_file()
