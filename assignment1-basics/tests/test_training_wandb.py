"""Logging to Weights & Biases, offline: the run's files are really written."""

import numpy as np
import pytest

from cs336_basics.run_log import RunLog, read_metrics
from cs336_basics.train import TrainConfig, train


@pytest.fixture(autouse=True)
def _no_account(monkeypatch, tmp_path):
    """No key and no settings of the person who runs the tests."""
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")


def _config(tmp_path, **settings):
    for name in ("train", "valid"):
        (np.arange(500) % 30).astype("uint16").tofile(tmp_path / f"{name}.dat")
    return TrainConfig(
        data_dir=str(tmp_path), vocab_size=30, d_model=16, num_layers=1, num_heads=2, context_len=8, batch_size=2,
        train_steps=6, log_intervals=2, device="cpu", run_dir=str(tmp_path / "the-folder"),
        save_ckp_path=str(tmp_path / "the-folder"), wandb_project="a-project", **settings,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shown"), [({"wandb_run_name": "a-name"}, b"\x06a-name"), ({}, b"\x0athe-folder")])
def test_offline_without_a_key(tmp_path, name, shown):
    """The name is looked for with its length before it: the folder's name is also the end of a path in the settings."""
    result = train(_config(tmp_path, **name), progress=False)
    files = list((tmp_path / "the-folder" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 1
    content = files[0].read_bytes()
    for written in (b"a-project", shown, b"train_loss", b"val_loss", b"grad_norm", b"d_model"):
        assert written in content
    assert len(read_metrics(result.metrics_path)) == 4


def test_no_wandb_wins(tmp_path):
    train(_config(tmp_path, no_wandb=True), progress=False)
    assert not (tmp_path / "the-folder" / "wandb").exists()


def test_the_log_is_cut_back_to_where_a_run_resumes(tmp_path):
    with RunLog(tmp_path) as log:
        for step in range(5):
            log.write({"step": step, "train_loss": step / 3})
    with open(log.path, "a") as file:
        file.write('{"step": 5, "tra')
    with RunLog(tmp_path, resume_step=2) as log:
        log.write({"step": 3, "train_loss": 0.5})
    assert [entry["step"] for entry in read_metrics(log.path)] == [0, 1, 2, 3]
    assert read_metrics(log.path)[1]["train_loss"] == 1 / 3
    with RunLog(tmp_path) as log:
        pass
    assert read_metrics(log.path) == []


def test_a_number_that_is_none_is_never_written(tmp_path):
    with RunLog(tmp_path) as log, pytest.raises(ValueError, match="JSON"):
        log.write({"step": 1, "train_loss": float("nan")})
    assert read_metrics(log.path) == []
