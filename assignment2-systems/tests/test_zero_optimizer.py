"""The sharded optimizer against the unsharded one, and against PyTorch's ZeroRedundancyOptimizer."""

import warnings

import pytest
import torch
import torch.distributed as dist

from cs336_basics.trainer.AdamW import AdamW
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.sharded_optimizer import ShardedOptimizer

from .distributed_checks import expect_success, names
from .parallel_cases import make_batches, make_model

OPTIMIZERS = (
    (AdamW, {"lr": 1e-2, "weight_decay": 0.1}),
    (torch.optim.AdamW, {"lr": 1e-2, "betas": (0.8, 0.9)}),
    (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
)


def _train(model, optimizer, batches, scheduler=None):
    for inputs, targets in batches:
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def _expect_equal(model, other):
    for own, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-7, atol=0)


def _two_groups(model):
    norms = [p for p in model.parameters() if p.ndim == 1]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    return [{"params": matrices}, {"params": norms, "lr": 1e-3}]


def check_equals_unsharded():
    batches = make_batches()
    for optimizer_cls, settings in OPTIMIZERS:
        for groups in (lambda model: model.parameters(), _two_groups):
            model, other = (make_model(dtype=torch.float32) for _ in range(2))
            optimizers = (
                ShardedOptimizer(groups(model), optimizer_cls, **settings),
                optimizer_cls(groups(other), **settings),
            )
            for trained, optimizer in zip((model, other), optimizers, strict=True):
                # Also once the schedule has changed the learning rate of each group.
                schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
                _train(trained, optimizer, batches, schedule)
            _expect_equal(model, other)


def check_equals_torch_zero():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module compiles other optimizers in a deprecated way
        from torch.distributed.optim import ZeroRedundancyOptimizer

    model, other = (make_model(dtype=torch.float32) for _ in range(2))
    _train(model, ShardedOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-2), make_batches())
    theirs = ZeroRedundancyOptimizer(other.parameters(), torch.optim.AdamW, lr=1e-2)
    _train(other, theirs, make_batches())
    _expect_equal(model, other)


def check_groups_added_later():
    model, other = (make_model(dtype=torch.float32) for _ in range(2))
    optimizers = (
        ShardedOptimizer(model.layers.parameters(), AdamW, lr=1e-2),
        AdamW(other.layers.parameters(), lr=1e-2),
    )
    for trained, optimizer in zip((model, other), optimizers, strict=True):
        _train(trained, optimizer, make_batches(2))
        optimizer.add_param_group({"params": trained.lm_head.weight, "lr": 3e-3, "weight_decay": 0.5})
        _train(trained, optimizer, make_batches(3))
    _expect_equal(model, other)
    assert optimizers[0].param_groups[1]["eps"] == 1e-8  # a default of AdamW


def check_each_rank_has_its_share():
    world_size = dist.get_world_size()
    model = make_model(dtype=torch.float32)
    optimizer = ShardedOptimizer(model.parameters(), AdamW)
    _train(model, optimizer, make_batches(1))
    own = sum(state["exp_avg"].numel() for state in optimizer.state.values())
    of_all = [None] * world_size
    dist.all_gather_object(of_all, own)
    sizes = [p.numel() for p in model.parameters()]
    assert sum(of_all) == sum(sizes)
    assert max(of_all) - min(of_all) <= max(sizes)
    assert max(of_all) <= 1.1 * sum(sizes) / world_size


def check_parameters_without_gradient_and_closures():
    model, other = (make_model(dtype=torch.float32) for _ in range(2))
    (batch,) = make_batches(1)
    for trained, optimizer in (
        (model, ShardedOptimizer(model.parameters(), AdamW)),
        (other, AdamW(other.parameters())),
    ):
        trained.layers[0].requires_grad_(False)

        def closure(trained=trained, optimizer=optimizer):
            optimizer.zero_grad()
            loss = cross_entropy(trained(batch[0]), batch[1])
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() for _ in range(3)]
        assert losses[0] > losses[2]
    _expect_equal(model, other)


def check_state_dict_is_the_unsharded_one():
    model, other = (make_model(dtype=torch.float32) for _ in range(2))
    optimizer, theirs = ShardedOptimizer(_two_groups(model), AdamW), AdamW(_two_groups(other))
    _train(model, optimizer, make_batches(2))
    _train(other, theirs, make_batches(2))
    state_dict, expected = optimizer.state_dict(), theirs.state_dict()
    torch.testing.assert_close(state_dict["state"], expected["state"], rtol=1e-7, atol=0)
    assert state_dict["param_groups"] == expected["param_groups"]
    # Either loads into the other.
    optimizer.load_state_dict(expected)
    theirs.load_state_dict(state_dict)
    _train(model, optimizer, make_batches(2))
    _train(other, theirs, make_batches(2))
    _expect_equal(model, other)
    with pytest.raises(ValueError, match="groups of"):
        optimizer.load_state_dict(AdamW(other.parameters()).state_dict())


CHECKS = (
    check_equals_unsharded,
    check_equals_torch_zero,
    check_groups_added_later,
    check_each_rank_has_its_share,
    check_parameters_without_gradient_and_closures,
    check_state_dict_is_the_unsharded_one,
)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=names(CHECKS))
def test_on_three_ranks(check):
    expect_success(check, CHECKS, 3)
