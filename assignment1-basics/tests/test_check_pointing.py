"""Checkpoints: whole or not there, read back exactly, and never trusted."""

import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from cs336_basics.check_pointing import (
    latest_good_checkpoint,
    load_checkpoint,
    load_model,
    read_checkpoint,
    resolve_checkpoint,
    save_checkpoint,
)
from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM, TransformerConfig
from cs336_basics.optimizer import AdamW

SHAPE = TransformerConfig(vocab_size=31, context_length=8, d_model=16, num_layers=2, num_heads=2, tie_embeddings=True)


def _trained(steps=2, seed=0):
    torch.manual_seed(seed)
    model = BasicsTransformerLM.from_config(SHAPE)
    optimizer = AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        model(torch.randint(31, (2, 8))).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def _same(a, b):
    """Whether two nests of dictionaries, lists, tensors and plain values are equal in every bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("kind", ["path", "str", "open file", "buffer"])
def test_everything_comes_back(tmp_path, kind):
    model, optimizer = _trained()
    path = tmp_path / "new" / "checkpoint_7.pt"
    buffer = io.BytesIO()
    if kind == "open file":
        path.parent.mkdir()
        with open(path, "wb") as file:
            save_checkpoint(model, optimizer, 7, file)
    else:
        save_checkpoint(model, optimizer, 7, {"path": path, "str": str(path), "buffer": buffer}[kind])
    other_model, other_optimizer = _trained(steps=1, seed=1)
    buffer.seek(0)
    if kind == "open file":
        with open(path, "rb") as file:
            assert load_checkpoint(file, other_model, other_optimizer) == 7
    else:
        assert load_checkpoint(buffer if kind == "buffer" else path, other_model, other_optimizer) == 7
    assert _same(dict(model.state_dict()), dict(other_model.state_dict()))
    assert _same(optimizer.state_dict(), other_optimizer.state_dict())


def test_a_foreign_optimizer_and_model_work_too(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    save_checkpoint(model, optimizer, 1, tmp_path / "c.pt", note="mine")
    other = torch.nn.Linear(3, 2)
    assert load_checkpoint(tmp_path / "c.pt", other, torch.optim.AdamW(other.parameters())) == 1
    assert torch.equal(model.weight, other.weight)
    assert read_checkpoint(tmp_path / "c.pt")["note"] == "mine"
    with pytest.raises(UsageError, match="model_config"):
        load_model(tmp_path / "c.pt")


def test_the_model_can_be_built_from_its_checkpoint(tmp_path):
    model, optimizer = _trained()
    save_checkpoint(model, optimizer, 2, tmp_path / "c.pt")
    loaded = load_model(tmp_path / "c.pt", device="cpu")
    assert loaded.config == SHAPE
    assert not loaded.training
    ids = torch.randint(31, (1, 8))
    assert torch.equal(loaded(ids), model.eval()(ids))
    assert loaded.lm_head.weight is loaded.token_embeddings.weight


def test_a_compiled_model_is_saved_under_its_own_names(tmp_path):
    model, optimizer = _trained()
    compiled = torch.compile(model)
    save_checkpoint(compiled, optimizer, 2, tmp_path / "c.pt")
    assert read_checkpoint(tmp_path / "c.pt")["model_state_dict"].keys() == model.state_dict().keys()
    assert load_checkpoint(tmp_path / "c.pt", compiled, optimizer) == 2


def test_a_failed_write_leaves_the_old_file(tmp_path):
    model, optimizer = _trained()
    path = tmp_path / "checkpoint_1.pt"
    save_checkpoint(model, optimizer, 1, path)
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(model, optimizer, 2, path, bad=lambda: None)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["checkpoint_1.pt"]


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_is_refused(tmp_path, part):
    model, optimizer = _trained()
    path = tmp_path / "checkpoint_1.pt"
    save_checkpoint(model, optimizer, 1, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(UsageError, match=r"checkpoint_1\.pt is not a readable checkpoint: it is truncated"):
        read_checkpoint(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    model, optimizer = _trained()
    path = tmp_path / "checkpoint_1.pt"
    save_checkpoint(model, optimizer, 1, path)
    content = bytearray(path.read_bytes())
    start = content.find(model.lm_head.weight.detach().numpy().tobytes())
    assert start > 0
    content[start + 10] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="damaged"):
        read_checkpoint(path)


class _Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"model_state_dict": _Bomb(tmp_path / "gone off")}, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"x\.pt is not a"):
        read_checkpoint(tmp_path / "x.pt")
    assert not (tmp_path / "gone off").exists()
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert (tmp_path / "gone off").exists()  # so the bomb was a real one


@pytest.mark.parametrize("content", [[1, 2], {"weights": torch.ones(2)}, torch.ones(3)])
def test_foreign_files_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UsageError, match=r"x\.pt is not a"):
        read_checkpoint(tmp_path / "x.pt")
    (tmp_path / "x.pt").write_text("hello, I am a text\n" * 10)
    with pytest.raises(UsageError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "x.pt")


def test_the_latest_good_one_is_found(tmp_path):
    model, optimizer = _trained()
    for age, name in enumerate(["checkpoint_9.pt", "checkpoint_100.pt", "checkpoint_final.pt", "checkpoint_10.pt"]):
        save_checkpoint(model, optimizer, age, tmp_path / name)
        os.utime(tmp_path / name, ns=(age * 10**9, age * 10**9))
    (tmp_path / "checkpoint_notes.txt").write_text("not one of them")
    assert latest_good_checkpoint(tmp_path) == (tmp_path / "checkpoint_10.pt", [])
    for name in ("checkpoint_10.pt", "checkpoint_final.pt"):
        os.truncate(tmp_path / name, 1000)
        os.utime(tmp_path / name, ns=(10**10, 10**10))
    path, passed_over = latest_good_checkpoint(tmp_path)
    assert path == tmp_path / "checkpoint_100.pt"
    assert len(passed_over) == 2
    assert all("truncated" in sentence for sentence in passed_over)


def test_a_name_is_resolved(tmp_path):
    model, optimizer = _trained()
    for step in (1, 2):
        save_checkpoint(model, optimizer, step, tmp_path / f"checkpoint_{step}.pt")
        os.utime(tmp_path / f"checkpoint_{step}.pt", ns=(step, step))
    os.truncate(tmp_path / "checkpoint_2.pt", 1000)
    os.utime(tmp_path / "checkpoint_2.pt", ns=(2, 2))
    said = []
    assert resolve_checkpoint("latest", tmp_path, said.append) == tmp_path / "checkpoint_1.pt"
    assert len(said) == 1
    assert said[0].endswith(f"; going on from {tmp_path / 'checkpoint_1.pt'} instead")
    assert resolve_checkpoint("elsewhere/c.pt", tmp_path, said.append) == Path("elsewhere/c.pt")
    assert len(said) == 1


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with pytest.raises(UsageError, match=f"{tmp_path} holds no readable checkpoint"):
        latest_good_checkpoint(tmp_path)
    with pytest.raises(UsageError, match="holds no readable checkpoint"):
        latest_good_checkpoint(tmp_path / "nowhere")


def test_a_missing_file_is_its_own_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pt")
