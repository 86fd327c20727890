"""The distributed adapters of both editions, bound and used as the course's suites use them."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from cs336_basics.model import Embedding, Linear, RMSNorm

from . import adapters
from .distributed_checks import expect_success, names


class _Toy(nn.Module):
    """Tied and frozen parameters; the course's suites have the like."""

    def __init__(self, tied):
        super().__init__()
        self.first, self.second, self.third = Linear(10, 20), Linear(20, 20), Linear(20, 5)
        self.norm = RMSNorm(20)
        self.fixed = nn.Parameter(torch.tensor([2.0, 2.0]), requires_grad=False)
        if tied:
            self.fourth = Linear(20, 20)
            self.fourth.weight = self.second.weight

    def forward(self, x):
        x = self.norm(self.second(torch.relu(self.first(x))))
        return self.third(self.fourth(x) if hasattr(self, "fourth") else x)


class _Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.norm, self.head = Embedding(16, 8), RMSNorm(8), Linear(8, 16)

    def forward(self, tokens):
        return self.head(self.norm(self.embedding(tokens)))


def _run(container, finish, start=lambda *_: None, tied=False):
    torch.manual_seed(dist.get_rank())
    wrapped = container(_Toy(tied))
    assert isinstance(wrapped.module, _Toy)
    # All ranks have the first one's weights by now.
    alone = copy.deepcopy(wrapped.module)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (wrapped, alone)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        x, y = torch.randn(20, 10, generator=generator), torch.randn(20, 5, generator=generator)
        start(wrapped, optimizers[0])
        for optimizer in optimizers:
            optimizer.zero_grad()
        nn.functional.mse_loss(alone(x), y).backward()
        rank, half = dist.get_rank(), len(x) // dist.get_world_size()
        own = slice(rank * half, (rank + 1) * half)
        nn.functional.mse_loss(wrapped(x[own]), y[own]).backward()
        finish(wrapped, optimizers[0])
        for optimizer in optimizers:
            optimizer.step()
        for parameter, expected in zip(wrapped.module.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(parameter, expected)


def check_ddp():
    for tied in (False, True):
        _run(adapters.get_ddp, adapters.ddp_on_after_backward, tied=tied)


def check_ddp_individual_parameters():
    for tied in (False, True):
        _run(adapters.get_ddp_individual_parameters, adapters.ddp_individual_parameters_on_after_backward, tied=tied)


def check_ddp_bucketed():
    for megabytes in (1e-6, 0.001, 0.01):
        for tied in (False, True):
            _run(
                lambda module: adapters.get_ddp_bucketed(module, bucket_size_mb=megabytes),  # noqa: B023
                adapters.ddp_bucketed_on_after_backward,
                adapters.ddp_bucketed_on_train_batch_start,
                tied,
            )


def check_fsdp():
    for compute_dtype in (None, torch.float16, torch.bfloat16):
        torch.manual_seed(dist.get_rank())
        wrapped = adapters.get_fsdp(_Tokens(), compute_dtype=compute_dtype)
        alone = _Tokens()
        alone.load_state_dict(adapters.fsdp_gather_full_params(wrapped))
        optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2) for model in (wrapped, alone)]
        generator = torch.Generator().manual_seed(0)
        for _ in range(4):
            tokens, targets = torch.randint(16, (2, 4, 6), generator=generator)
            for optimizer in optimizers:
                optimizer.zero_grad()
            nn.functional.cross_entropy(alone(tokens).flatten(0, 1), targets.flatten()).backward()
            own = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
            logits = wrapped(tokens[own]).float()
            nn.functional.cross_entropy(logits.flatten(0, 1), targets[own].flatten()).backward()
            adapters.fsdp_on_after_backward(wrapped, optimizers[0])
            for parameter in wrapped.parameters():
                assert parameter.grad.shape == parameter.shape
                assert parameter.grad.dtype == parameter.dtype == torch.float32
            for optimizer in optimizers:
                optimizer.step()
            full = adapters.fsdp_gather_full_params(wrapped)
            assert full.keys() == dict(alone.named_parameters()).keys()
            tolerance = {} if compute_dtype is None else {"rtol": 0.1, "atol": 0.02}
            for name, parameter in alone.named_parameters():
                torch.testing.assert_close(full[name], parameter.detach(), **tolerance)


def check_sharded_optimizer():
    torch.manual_seed(0)
    model = _Toy(tied=True)
    alone = copy.deepcopy(model)
    settings = {"lr": 0.1, "weight_decay": 0.1, "betas": (0.9, 0.999), "eps": 1e-8}
    optimizers = (
        adapters.get_sharded_optimizer(model.parameters(), torch.optim.AdamW, **settings),
        torch.optim.AdamW(alone.parameters(), **settings),
    )
    assert isinstance(optimizers[0], torch.optim.Optimizer)
    for _ in range(5):
        x, y = torch.rand(8, 10), torch.rand(8, 5)
        for trained, optimizer in zip((model, alone), optimizers, strict=True):
            optimizer.zero_grad()
            nn.functional.mse_loss(trained(x), y).backward()
            optimizer.step()
    for own, expected in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-7, atol=0)


CHECKS = (check_ddp, check_ddp_individual_parameters, check_ddp_bucketed, check_fsdp, check_sharded_optimizer)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=names(CHECKS))
def test_adapter(check):
    expect_success(check, CHECKS, 2)
