"""Data parallelism in four ways, against the single process and PyTorch's DistributedDataParallel."""

import itertools
import math

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cs336_basics.command_line import UsageError
from cs336_basics.model import Linear
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_systems.data_parallel import BucketedDDP, FlatDDP, NaiveDDP, OverlappedDDP
from cs336_systems.data_parallel.bucketed import cut_into_buckets

from .distributed_checks import expect_success, names, part_of
from .parallel_cases import SHAPES, make_batches, make_model, make_optimizer

WAYS = {
    "naive": NaiveDDP,
    "flat": FlatDDP,
    "overlapped": OverlappedDDP,
    "bucketed": lambda *arguments: BucketedDDP(arguments[0], 0.01, *arguments[1:]),
    "one bucket": lambda *arguments: BucketedDDP(arguments[0], 1000.0, *arguments[1:]),
    "a bucket each": lambda *arguments: BucketedDDP(arguments[0], 1e-9, *arguments[1:]),
}


def _train(model, batches, finish=lambda: None):
    optimizer = make_optimizer(model)
    losses = []
    for inputs, targets in batches:
        optimizer.zero_grad()
        loss = cross_entropy(model(inputs), targets)
        loss.backward()
        finish()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def check_equals_single_process():
    batches = make_batches(batch_size=12)
    own = [part_of(batch) for batch in batches]
    for shape in SHAPES:
        alone = make_model(shape)
        expected = _train(alone, batches)
        for name, way in WAYS.items():
            # Only the first rank has the right weights.
            model = make_model(shape, seed=dist.get_rank())
            wrapped = way(model)
            losses = _train(wrapped, own, wrapped.finish_gradient_synchronization)
            dist.all_reduce(losses)
            torch.testing.assert_close(losses / dist.get_world_size(), expected, rtol=1e-12, atol=1e-12, msg=name)
            for key, value in alone.state_dict().items():
                torch.testing.assert_close(model.state_dict()[key], value, rtol=1e-9, atol=1e-9)


def check_equals_torch_bit_for_bit():
    own = [part_of(batch) for batch in make_batches()]
    theirs = make_model(dtype=torch.float32)
    expected = _train(nn.parallel.DistributedDataParallel(theirs), own)
    for way in WAYS.values():
        model = make_model(dtype=torch.float32)
        wrapped = way(model)
        assert torch.equal(_train(wrapped, own, wrapped.finish_gradient_synchronization), expected)
        assert all(map(torch.equal, model.parameters(), theirs.parameters()))


class _Branches(nn.Module):
    """Layers that not every rank uses, a frozen one, tied ones, and a buffer."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.always, self.sometimes, self.never, self.frozen = (Linear(4, 4) for _ in range(4))
        self.tied = Linear(4, 4)
        self.tied.weight = self.always.weight
        self.frozen.weight.requires_grad_(False)
        self.register_buffer("offset", torch.randn(4))

    def forward(self, x, use):
        x = self.tied(self.frozen(self.always(x))) + self.offset
        return self.sometimes(x) if use else x


def check_parameters_unused_on_some_ranks():
    world_size, rank = dist.get_world_size(), dist.get_rank()
    generator = torch.Generator().manual_seed(0)
    for way in WAYS.values():
        model, reference = _Branches(rank), _Branches(0)
        wrapped = way(model)
        assert torch.equal(model.offset, reference.offset)
        assert all(map(torch.equal, model.parameters(), reference.parameters()))
        for step in range(4):
            x = torch.randn(world_size, 3, 4, generator=generator)
            # Another rank in each step; in the last step none.
            uses = [other == step and step < 3 for other in range(world_size)]
            wrapped.zero_grad()
            reference.zero_grad()
            wrapped(x[rank], uses[rank]).square().mean().backward()
            wrapped.finish_gradient_synchronization()
            sum(reference(x[i], uses[i]).square().mean() for i in range(world_size)).div(world_size).backward()
            for (name, own), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
                assert (own.grad is None) == (theirs.grad is None), name
                if own.grad is not None:
                    torch.testing.assert_close(own.grad, theirs.grad)
            assert (model.sometimes.weight.grad is None) == (not any(uses))


def check_gradient_accumulation():
    (batch,) = make_batches(1, batch_size=12)
    alone = make_model()
    cross_entropy(alone(batch[0]), batch[1]).backward()
    for way in WAYS.values():
        wrapped = way(make_model())
        for keep_zeros in (False, True):  # gradients that are there from the start
            wrapped.zero_grad(set_to_none=not keep_zeros)
            micro_batches = [part_of(part_of(batch), i, 2) for i in range(2)]
            with wrapped.no_sync():
                cross_entropy(wrapped(micro_batches[0][0]), micro_batches[0][1]).div(2).backward()
            first = [p.grad.clone() for p in wrapped.parameters()]
            total = [gradient.clone() for gradient in first]
            for gradient in total:
                dist.all_reduce(gradient)
            assert not torch.allclose(total[0], first[0] * dist.get_world_size())  # it was this rank's own so far
            cross_entropy(wrapped(micro_batches[1][0]), micro_batches[1][1]).div(2).backward()
            wrapped.finish_gradient_synchronization()
            for own, theirs in zip(wrapped.parameters(), alone.parameters(), strict=True):
                torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def check_uneven_batch_is_refused():
    sizes = [3 + (rank == 0) for rank in range(dist.get_world_size())]
    for way in WAYS.values():
        wrapped = way(_Branches(0))
        for size, refused in ((sizes[dist.get_rank()], True), (5, False)):
            wrapped.zero_grad()
            wrapped.start_batch()
            wrapped(torch.ones(size, 4), True).sum().backward()
            message = ""
            try:
                wrapped.finish_gradient_synchronization()
            except UsageError as error:
                message = str(error)
            assert (", ".join(map(str, sizes)) in message) == refused, message


def check_state_dict_has_no_prefix():
    for way in WAYS.values():
        model = _Branches(1)
        wrapped = way(_Branches(0))
        assert wrapped.state_dict().keys() == model.state_dict().keys()
        wrapped.load_state_dict(model.state_dict())
        assert torch.equal(wrapped.module.offset, model.offset)
        assert torch.equal(wrapped.module.never.weight, model.never.weight)


def check_messages_start_during_backward():
    batch = part_of(make_batches(1)[0])
    for way in (WAYS["overlapped"], WAYS["bucketed"]):
        wrapped = way(make_model())
        started = []
        # The embedding's gradient is the last one; what was sent before it was sent during the backward pass.
        wrapped.module.token_embeddings.weight.register_hook(lambda _: started.append(len(wrapped._in_flight)))  # noqa: B023
        for step in range(2):
            loss = cross_entropy(wrapped(batch[0]), batch[1])
            loss.backward()
            assert started[step] > 0
            assert len(wrapped._in_flight) == len(wrapped._buckets)
            wrapped.finish_gradient_synchronization()
            wrapped.zero_grad()
        # In the second step gradients come in the agreed order, so none waits for another.
        assert started[1] >= len(wrapped._buckets) - 1


def check_second_backward_pass_is_refused():
    for way in (WAYS["overlapped"], WAYS["bucketed"]):
        wrapped = way(_Branches(0))
        wrapped(torch.ones(2, 4), True).sum().backward()
        with pytest.raises(RuntimeError, match="no_sync"):
            wrapped(torch.ones(2, 4), True).sum().backward()
        wrapped.start_batch()
        wrapped.zero_grad()
        wrapped(torch.ones(2, 4), True).sum().backward()
        wrapped.finish_gradient_synchronization()


def check_process_groups():
    """The first two ranks average with each other, the third one with itself."""
    pair, single = dist.new_group([0, 1]), dist.new_group([2])
    rank = dist.get_rank()
    for way in WAYS.values():
        wrapped = way(_Branches(rank), single if rank == 2 else pair)
        start = _Branches(2 if rank == 2 else 0)
        assert all(map(torch.equal, wrapped.module.parameters(), start.parameters()))
        wrapped(torch.full((2, 4), rank + 1.0), True).mean().backward()
        wrapped.finish_gradient_synchronization()
        members = [2] if rank == 2 else [0, 1]
        sum(start(torch.full((2, 4), i + 1.0), True).mean() for i in members).div(len(members)).backward()
        torch.testing.assert_close(wrapped.module.always.weight.grad, start.always.weight.grad)


ON_TWO = (
    check_equals_single_process,
    check_equals_torch_bit_for_bit,
    check_gradient_accumulation,
    check_state_dict_has_no_prefix,
    check_messages_start_during_backward,
    check_second_backward_pass_is_refused,
)
ON_THREE = (
    check_equals_single_process,
    check_parameters_unused_on_some_ranks,
    check_uneven_batch_is_refused,
    check_process_groups,
)


@pytest.mark.slow
@pytest.mark.parametrize("check", ON_TWO, ids=names(ON_TWO))
def test_on_two_ranks(check):
    expect_success(check, ON_TWO, 2)


@pytest.mark.slow
@pytest.mark.parametrize("check", ON_THREE, ids=names(ON_THREE))
def test_on_three_ranks(check):
    expect_success(check, ON_THREE, 3)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from([torch.float32, torch.bfloat16])), max_size=20),
    st.floats(1, 200),
)
def test_buckets_keep_order_size_and_type(parameters, size):
    order = [nn.Parameter(torch.empty(length, dtype=dtype)) for length, dtype in parameters]
    buckets = cut_into_buckets(order, size)
    assert [id(p) for bucket in buckets for p in bucket] == list(map(id, order))
    for bucket in buckets:
        assert len(bucket) == 1 or sum(p.nbytes for p in bucket) <= size
        assert len({p.dtype for p in bucket}) == 1
    for bucket, following in itertools.pairwise(buckets):
        other_type = bucket[0].dtype != following[0].dtype
        assert other_type or sum(p.nbytes for p in bucket) + following[0].nbytes > size  # not cut too early


@pytest.mark.parametrize("size", [0, -1, math.nan])
def test_bucket_size_must_be_positive(size):
    with pytest.raises(UsageError, match="bucket_size_mb"):
        BucketedDDP(nn.Identity(), size)
