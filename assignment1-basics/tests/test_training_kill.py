"""Training in processes of its own that are really killed: what is left must be enough to go on bit for bit."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cs336_basics.check_pointing import read_checkpoint
from cs336_basics.run_log import read_metrics
from cs336_basics.train import config_from_arguments, train

PACKAGE = Path(__file__).parents[1] / "cs336_basics"
PROGRAM = PACKAGE / "train.py"
STEPS = 500
FLAGS = [
    "--data_dir", "data", "--vocab_size", "40", "--d_model", "32", "--num_layers", "1", "--num_heads", "2",
    "--context_len", "8", "--batch_size", "8", "--gradient_accumulation_steps", "2", "--train_steps", str(STEPS),
    "--save_intervals", "25", "--log_intervals", "3", "--val_interval", "50", "--val_batches", "1", "--device", "cpu",
    "--no_wandb",
]  # fmt: skip


@pytest.fixture
def one_thread():
    """Sums are ordered by the number of threads; a run is repeatable only with the same one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _start(*flags):
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _wait_for_step(metrics, step, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if metrics.exists() and (entries := read_metrics(metrics)) and entries[-1]["step"] >= step:
            return
        assert process.poll() is None, f"the process ended with {process.returncode} before step {step}"
        time.sleep(0.01)
    raise AssertionError(f"step {step} was not reached in time")


def _numbers(metrics):
    names = ("step", "tokens", "train_loss", "val_loss", "lr", "grad_norm")
    return [{name: entry[name] for name in names if name in entry} for entry in read_metrics(metrics)]


def _assert_equal(a, b, where=""):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _assert_equal(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            _assert_equal(x, y, f"{where}/{index}")
    else:
        assert a == b, where


@pytest.mark.slow
def test_killed_stopped_and_resumed_is_the_run_that_never_was(tmp_path, monkeypatch, one_thread):
    """SIGKILL, a truncated checkpoint, resume, SIGTERM, resume: the end equals that of an undisturbed run."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    generator = np.random.default_rng(0)
    for name, length in (("train", 5000), ("valid", 500)):
        generator.integers(40, size=length).astype("uint16").tofile(f"data/{name}.dat")
    metrics, checkpoints = Path("broken/metrics.jsonl"), Path("broken")

    process = _start(*FLAGS, "--run_dir", "broken", "--save_ckp_path", "broken")
    _wait_for_step(metrics, 65, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (checkpoints / "checkpoint_final.pt").exists()
    assert not list(checkpoints.glob("*.html"))

    newest = max(checkpoints.glob("checkpoint_*.pt"), key=lambda path: path.stat().st_mtime_ns)
    os.truncate(newest, newest.stat().st_size // 2)
    killed_at = read_metrics(metrics)[-1]["step"]

    process = _start("--resume_ckp", "latest", "--save_ckp_path", "broken")
    _wait_for_step(metrics, killed_at + 30, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    command = output.strip().splitlines()[-1].split("go on with: ")[1]
    assert command.startswith("uv run python cs336_basics/train.py --resume_ckp broken/checkpoint_")
    stopped_at = read_checkpoint(command.split()[-1])["iteration"]
    assert killed_at < stopped_at < STEPS

    resumed = train(config_from_arguments(command.split()[4:]), progress=False)
    undisturbed = train(
        config_from_arguments([*FLAGS, "--run_dir", "whole", "--save_ckp_path", "whole"]), progress=False
    )
    ends = [read_checkpoint(result.checkpoint_path) for result in (resumed, undisturbed)]
    assert ends[0]["iteration"] == STEPS
    for different in ("seconds", "train_config", "wandb_id", "numbered_checkpoints"):
        for end in ends:
            del end[different]
    _assert_equal(*ends)
    assert _numbers(resumed.metrics_path) == _numbers(undisturbed.metrics_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "module", "error"),
    [
        (["train.py", "--data_dir", "nowhere"], "cs336_basics.trainer.loop", "error: nowhere/train.dat"),
        (["generate.py", "--tokenizer", "nowhere"], "cs336_basics.sampling", "error: nowhere is not there"),
    ],
)
def test_run_by_its_path_a_program_finds_other_packages(tmp_path, arguments, module, error):
    """Its own folder holds data.py, datasets.py and tokenizer.py, which must not stand in for other modules."""
    result = subprocess.run(
        [sys.executable, "-X", "importtime", str(PACKAGE / arguments[0]), *arguments[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    lines = result.stderr.splitlines()
    imported = {line.split("|")[-1].strip() for line in lines if line.startswith("import time:")}
    assert {"cs336_basics.tokenizer", module, "torch"} <= imported
    assert not imported & {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    messages = [line for line in lines if not line.startswith("import time:")]
    assert result.returncode == 2
    assert len(messages) == 1
    assert messages[0].startswith(error)
