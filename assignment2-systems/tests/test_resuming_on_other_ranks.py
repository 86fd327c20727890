"""Runs of FSDP and of the sharded optimizer that go on with another number of ranks: 2, then 3, then 1."""

import json

import pytest
import torch
import torch.distributed as dist

from cs336_basics.check_pointing import load_model, save_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.data_parallel import FlatDDP
from cs336_systems.fsdp import FSDP
from cs336_systems.fsdp import checkpoint as fsdp_checkpoint
from cs336_systems.process_group import run_in_processes
from cs336_systems.sharded_optimizer import ShardedOptimizer

from .distributed_checks import part_of
from .parallel_cases import make_batches, make_model, make_optimizer

WORLD_SIZES = (2, 3, 1)
SHAPE = "tied, post-norm, qk-norm"
STEPS_EACH = 2


def _batches():
    return make_batches(STEPS_EACH * len(WORLD_SIZES), batch_size=12)


def _train(model, optimizer, first_step):
    for batch in _batches()[first_step : first_step + STEPS_EACH]:
        inputs, targets = part_of(batch)
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        model.finish_gradient_synchronization()
        optimizer.step()


def _go_on(folder):
    """Resume what a run with fewer steps left in the folder, train on, and save; three ways of saving."""
    for name, load, save in (
        ("full.pt", fsdp_checkpoint.load_full, fsdp_checkpoint.save_full),
        ("sharded", fsdp_checkpoint.load_sharded, fsdp_checkpoint.save_sharded),
    ):
        model = FSDP(make_model(SHAPE, seed=7))
        optimizer = make_optimizer(model)
        step = 0
        if (folder / name).exists():
            loaded = load(folder / name, model, optimizer)
            step = loaded["iteration"]
            assert loaded["note"] == f"after {step}"
        _train(model, optimizer, step)
        step += STEPS_EACH
        save(folder / name, model, optimizer, step, note=f"after {step}")

    model = FlatDDP(make_model(SHAPE, seed=7))
    optimizer = ShardedOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-2)
    path = folder / "zero.pt"
    step = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    dist.barrier()
    _train(model, optimizer, step)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + STEPS_EACH}
    if dist.get_rank() == 0:
        torch.save(saved, path)


@pytest.mark.slow
def test_going_on_with_other_numbers_of_ranks_changes_nothing(tmp_path):
    for world_size in WORLD_SIZES:
        run_in_processes(_go_on, world_size, tmp_path)
        files = json.loads((tmp_path / "sharded" / "index.json").read_text())["files"]
        assert len(files) == world_size
        assert {path.name for path in (tmp_path / "sharded").iterdir()} == {"index.json", *files}

    alone = make_model(SHAPE, seed=7)
    zero_alone = make_model(SHAPE, seed=7)
    for model, optimizer in (
        (alone, make_optimizer(alone)),
        (zero_alone, torch.optim.AdamW(zero_alone.parameters(), lr=1e-2)),
    ):
        for inputs, targets in _batches():
            optimizer.zero_grad()
            cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    full = torch.load(tmp_path / "full.pt", weights_only=True)
    # The last run had one rank, so its file of the sharded kind is whole.
    (name,) = files
    sharded = torch.load(tmp_path / "sharded" / name, weights_only=True)
    zero = torch.load(tmp_path / "zero.pt", weights_only=True)["model"]
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(full["model_state_dict"][key], value, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(sharded["model_state_dict"][key], full["model_state_dict"][key], rtol=0, atol=0)
        torch.testing.assert_close(zero[key], zero_alone.state_dict()[key], rtol=1e-8, atol=1e-9)
    # A single process's programs read it.
    tokens = _batches()[0][0]
    torch.testing.assert_close(
        load_model(tmp_path / "full.pt", "cpu").double()(tokens), alone.eval()(tokens), rtol=1e-4, atol=1e-4
    )


def _save_twice_but_fail(folder):
    """The first rank writes its part of a second save; the other one ends before."""
    model = FSDP(make_model())
    optimizer = make_optimizer(model)
    _train(model, optimizer, 0)
    fsdp_checkpoint.save_sharded(folder, model, optimizer, STEPS_EACH)
    _train(model, optimizer, STEPS_EACH)
    if dist.get_rank() == 1:
        raise ArithmeticError("stopped")  # its part of the second save is never written
    fsdp_checkpoint.save_sharded(folder, model, optimizer, 2 * STEPS_EACH)


def _refuse(folder, model, optimizer, pattern):
    with pytest.raises(UsageError, match=pattern):
        fsdp_checkpoint.load_sharded(folder, model, optimizer)


def _load_and_refuse(folder):
    model = FSDP(make_model())
    optimizer = make_optimizer(model)
    assert fsdp_checkpoint.load_sharded(folder, model, optimizer)["iteration"] == STEPS_EACH
    _train(model, optimizer, STEPS_EACH)  # its state is that of a run after some steps
    other = FSDP(make_model(SHAPE))
    _refuse(folder, other, make_optimizer(other), "differ in")
    _refuse(folder, model, make_optimizer(model.module.layers), "parameters")
    _refuse(folder / "nothing", model, optimizer, "index")
    plain = make_model(SHAPE)
    save_checkpoint(plain, make_optimizer(plain), 3, folder / "plain.pt")
    assert fsdp_checkpoint.load_full(folder / "plain.pt", other, make_optimizer(other))["iteration"] == 3
    with pytest.raises(UsageError, match="differ in"):
        fsdp_checkpoint.load_full(folder / "plain.pt", model, optimizer)
    names = json.loads((folder / "index.json").read_text())["files"]
    (folder / names[0]).write_bytes((folder / names[0]).read_bytes()[:1000])
    _refuse(folder, model, optimizer, "truncated")


@pytest.mark.slow
def test_a_save_that_is_stopped_leaves_the_one_before_it(tmp_path):
    with pytest.raises(Exception, match="stopped"):
        run_in_processes(_save_twice_but_fail, 2, tmp_path)
    run_in_processes(_load_and_refuse, 1, tmp_path)
