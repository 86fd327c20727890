"""FSDP against the average of the ranks' own gradients, the single process, and PyTorch's `fully_shard`."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

from cs336_basics.command_line import UsageError
from cs336_basics.model import Embedding, Linear, RMSNorm
from cs336_basics.trainer.cross_entropy import cross_entropy
from cs336_basics.trainer.gradient_clipping import clip_gradient
from cs336_systems.checkpointing.blockwise import checkpoint_layers
from cs336_systems.fsdp import FSDP
from cs336_systems.fsdp.exchange import RowExchange
from cs336_systems.fused.use import language_model_loss

from .distributed_checks import expect_success, names, part_of
from .parallel_cases import SHAPES, make_batches, make_model, make_optimizer

FLOAT32 = {"dtype": torch.float32}


def _loss(model, batch):
    return cross_entropy(model(batch[0]), batch[1])


def _checkpoint_blocks(model):
    """Repeat each block's forward pass in its backward pass, by PyTorch's means."""
    for layer in model.layers:
        forward = layer.forward
        layer.forward = lambda *inputs, forward=forward: checkpoint(forward, *inputs, use_reentrant=False)
    return model


def _set_average_gradients(model, batch):
    """The plain average of what each rank would compute by itself, added up in the order of the ranks."""
    world_size = dist.get_world_size()
    totals = None
    for rank in range(world_size):
        model.zero_grad()
        _loss(model, part_of(batch, rank)).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        totals = gradients if totals is None else [total + own for total, own in zip(totals, gradients, strict=True)]
    for parameter, total in zip(model.parameters(), totals, strict=True):
        parameter.grad = total / world_size


def _expect_same_parameters(model, reference, **tolerance):
    full = model.gather_full_params()
    expected = dict(reference.named_parameters())
    assert full.keys() == expected.keys()
    for name, value in expected.items():
        if tolerance:
            torch.testing.assert_close(full[name], value.detach(), **tolerance)
        else:
            assert torch.equal(full[name], value), name


def _train(model, batches):
    optimizer = make_optimizer(model)
    for batch in batches:
        optimizer.zero_grad()
        _loss(model, part_of(batch)).backward()
        model.finish_gradient_synchronization()
        optimizer.step()


def check_equals_plain_average_bit_for_bit():
    for shape in SHAPES:
        for prepare in (
            lambda model: model,
            _checkpoint_blocks,
            lambda model: checkpoint_layers(model, (2, 1)),
        ):
            reference = prepare(make_model(shape, **FLOAT32))
            model = FSDP(prepare(make_model(shape, **FLOAT32, seed=dist.get_rank())))
            optimizers = make_optimizer(model), make_optimizer(reference)
            for batch in make_batches(3, batch_size=12):
                _set_average_gradients(reference, batch)
                model.zero_grad()
                _loss(model, part_of(batch)).backward()
                model.finish_gradient_synchronization()
                for optimizer in optimizers:
                    optimizer.step()
                _expect_same_parameters(model, reference)


def check_equals_single_process():
    """In float64, where the order of sums does not show; in float32 bit for bit if the plain average is equal too."""
    batches = make_batches(batch_size=12)
    for dtype in (torch.float64, torch.float32):
        alone, average = make_model(dtype=dtype), make_model(dtype=dtype)
        model = FSDP(make_model(dtype=dtype))
        optimizers = make_optimizer(alone), make_optimizer(average)
        for batch in batches:
            alone.zero_grad()
            _loss(alone, batch).backward()
            _set_average_gradients(average, batch)
            for optimizer in optimizers:
                optimizer.step()
        _train(model, batches)
        if all(map(torch.equal, alone.parameters(), average.parameters())):
            _expect_same_parameters(model, alone)
        elif dtype == torch.float64:
            _expect_same_parameters(model, alone, rtol=1e-9, atol=1e-9)


def check_equals_fully_shard():
    batches = make_batches()
    theirs = make_model(**FLOAT32)
    for layer in theirs.layers:
        fully_shard(layer)
    fully_shard(theirs)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    model = FSDP(make_model(**FLOAT32))
    own = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in batches:
        for trained, stepped in ((theirs, optimizer), (model, own)):
            stepped.zero_grad()
            _loss(trained, part_of(batch)).backward()
            if trained is model:
                model.finish_gradient_synchronization()
            stepped.step()
    full = model.gather_full_params()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(full[name], parameter.full_tensor().detach(), rtol=1e-6, atol=1e-7)


def check_layers_keep_type_and_name_and_hold_shards():
    world_size = dist.get_world_size()
    plain = make_model()
    model = FSDP(make_model())
    layers = dict(model.module.named_modules())
    for name, layer in plain.named_modules():
        assert type(layers[name]) is type(layer)
        if isinstance(layer, Linear | Embedding):
            counts = [None] * world_size
            dist.all_gather_object(counts, layers[name].weight.numel())
            assert sum(counts) == layer.weight.numel()
            assert max(counts) == -(-len(layer.weight) // world_size) * layer.weight.shape[1]
        if isinstance(layer, RMSNorm):
            assert layers[name].weight.shape == layer.weight.shape
    assert model.state_dict().keys() == plain.state_dict().keys()


def check_gradients_after_a_step():
    for compute_dtype in (None, torch.bfloat16, torch.float16):
        model = FSDP(make_model(**FLOAT32), compute_dtype)
        _loss(model, part_of(make_batches(1, batch_size=12)[0])).backward()
        model.finish_gradient_synchronization()
        for name, parameter in model.module.named_parameters():
            assert parameter.dtype == parameter.grad.dtype == torch.float32
            assert parameter.grad.shape == parameter.shape
            if parameter not in model.sharded:
                of_all = [torch.empty_like(parameter) for _ in range(dist.get_world_size())]
                dist.all_gather(of_all, parameter.grad)
                assert all(torch.equal(other, parameter.grad) for other in of_all), name


def check_at_most_two_layers_ahead():
    """While a layer computes, the whole weights are its own and at most those of the next two; after a step, none."""
    for gradients, passes in ((True, 3), (False, 2)):
        model = FSDP(make_model())
        alive = []
        fetch = model._fetch

        def count(weight, model=model, fetch=fetch, alive=alive):
            fetch(weight)
            on_hand = [other for other in model.sharded.values() if other.is_alive]
            assert weight in on_hand
            assert all(bool(other._padded.untyped_storage()) == other.is_alive for other in model.sharded.values())
            alive.append(len(on_hand))

        model._fetch = count
        for number in range(passes):
            alive.clear()
            with torch.set_grad_enabled(gradients):
                loss = _loss(model, part_of(make_batches(1)[0]))
            if gradients:
                loss.backward()
                model.finish_gradient_synchronization()
                assert not any(weight.is_alive for weight in model.sharded.values())
            linear_layers = sum(isinstance(layer, Linear) for layer in model.module.modules())
            assert len(alive) == 1 + linear_layers * (2 if gradients else 1)  # the embedding needs no weight backward
            # The first pass learns the order.
            assert max(alive) == (1 if number == 0 else 3)
            # There are two layers ahead but at the end, and where the head's backward pass follows its forward pass.
            assert number == 0 or Counter(alive)[3] >= len(alive) - 4


def check_messages_have_the_compute_dtype():
    sent = []
    gather, mean = RowExchange.start_gather, RowExchange.start_mean

    def start_gather(self, shard, padded, rows):
        sent.append(padded.dtype)
        return gather(self, shard, padded, rows)

    def start_mean(self, gradient, dtype):
        sent.append(gradient.dtype)
        return mean(self, gradient, dtype)

    batches = make_batches()
    reference = FSDP(make_model(**FLOAT32))
    _train(reference, batches)
    RowExchange.start_gather, RowExchange.start_mean = start_gather, start_mean
    try:
        for compute_dtype in (torch.bfloat16, torch.float16):
            model = FSDP(make_model(**FLOAT32), compute_dtype)
            sent.clear()
            seen = []
            model.module.layers[0].attn.q_proj.register_forward_hook(
                lambda layer, inputs, output, seen=seen: seen.extend([inputs[0].dtype, output.dtype])
            )
            _train(model, batches)
            assert set(sent) == set(seen) == {compute_dtype}
            loss, exact = (_loss(trained, batches[0]).float() for trained in (model, reference))
            torch.testing.assert_close(loss, exact, rtol=0.02, atol=0)
    finally:
        RowExchange.start_gather, RowExchange.start_mean = gather, mean


def check_gradient_accumulation():
    (batch,) = make_batches(1, batch_size=12)
    alone = make_model("tied, post-norm, qk-norm")
    _loss(alone, batch).backward()
    model = FSDP(make_model("tied, post-norm, qk-norm"))
    halves = [part_of(part_of(batch), i, 2) for i in range(2)]
    for all_local in (False, True):  # also where no pass has sent anything
        model.zero_grad()
        with model.no_sync():
            (_loss(model, halves[0]) / 2).backward()
            if all_local:
                (_loss(model, halves[1]) / 2).backward()
        assert all(shard.grad is None for shard in model.sharded)
        if not all_local:
            (_loss(model, halves[1]) / 2).backward()
        model.finish_gradient_synchronization()
        whole = dict(alone.named_parameters())
        for name, parameter in model.module.named_parameters():
            weight = model.sharded.get(parameter)
            expected = whole[name].grad if weight is None else whole[name].grad[weight.rows]
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-12, atol=1e-14)


def check_clipping_by_the_global_norm():
    (batch,) = make_batches(1, batch_size=12)
    for max_norm in (1e-2, 1e3):
        alone, model = make_model(), FSDP(make_model())
        _loss(alone, batch).backward()
        _loss(model, part_of(batch)).backward()
        model.finish_gradient_synchronization()
        norm = clip_gradient(alone.parameters(), max_norm)
        torch.testing.assert_close(model.clip_grad_norm(max_norm), norm, rtol=1e-10, atol=0)
        whole = dict(alone.named_parameters())
        for name, parameter in model.module.named_parameters():
            weight = model.sharded.get(parameter)
            expected = whole[name].grad if weight is None else whole[name].grad[weight.rows]
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-9, atol=1e-14)
    with pytest.raises(UsageError, match="max_norm"):
        model.clip_grad_norm(0)


class _Odd(nn.Module):
    """Fewer rows than ranks, a frozen layer, a layer that is not used, one that is used twice."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.twice = Embedding(5, 7), Linear(7, 7)
        self.frozen, self.unused, self.narrow = Linear(7, 7), Linear(7, 7), Linear(7, 1)
        self.frozen.weight.requires_grad_(False)

    def forward(self, tokens):
        x = self.twice(self.twice(self.embedding(tokens)))
        return self.narrow(self.frozen(x).tanh())


def check_odd_layers():
    tokens = torch.arange(12).view(6, 2) % 5
    reference, model = _Odd(), FSDP(_Odd(dist.get_rank()))
    optimizers = make_optimizer(reference), make_optimizer(model)
    (own,) = part_of((tokens,))
    for _ in range(3):
        reference(tokens).square().mean().backward()
        model(own).square().mean().backward()
        model.finish_gradient_synchronization()
        assert model.module.unused.weight.grad is None
        assert model.module.frozen.weight.grad is None
        assert not any(weight.is_alive for weight in model.sharded.values())
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        _expect_same_parameters(model, reference, rtol=1e-5, atol=1e-6)


class _Torchs(nn.Module):
    """Layers of torch: tied weights, biases, a frozen layer."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embedding, self.norm, self.head = nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 11, bias=False)
        self.up, self.down = nn.Linear(6, 9), nn.Linear(9, 6)
        self.down.weight.requires_grad_(False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(self.norm(x + self.down(self.up(x).tanh())))


def check_layers_of_other_kinds():
    tokens = torch.arange(12).view(6, 2) % 11
    kinds = (nn.Linear, nn.Embedding)
    reference, model = _Torchs().double(), FSDP(_Torchs(dist.get_rank()).double(), layer_types=kinds)
    assert len(model.sharded) == 3
    assert not FSDP(_Torchs()).sharded
    (own,) = part_of((tokens,))
    optimizers = make_optimizer(reference), make_optimizer(model)
    for _ in range(3):
        reference(tokens).square().mean().backward()
        model(own).square().mean().backward()
        assert not any(weight.is_alive for weight in model.sharded.values() if weight.whole.requires_grad)
        model.finish_gradient_synchronization()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        _expect_same_parameters(model, reference, rtol=1e-9, atol=1e-12)


def check_an_error_in_a_layer_leaves_the_shards_in_place():
    model = FSDP(make_model())
    shapes = [p.shape for p in model.parameters()]
    with pytest.raises(RuntimeError):
        model.module.lm_head(torch.ones(2, 3, dtype=torch.float64))  # not d_model
    assert "weight" not in vars(model.module.lm_head)
    assert [p.shape for p in model.parameters()] == shapes
    assert not any(weight.is_alive for weight in model.sharded.values())


def check_a_weight_shared_with_another_kind_of_layer_is_refused():
    model = nn.Module()
    model.linear, model.other = Linear(2, 2), nn.Linear(2, 2, bias=False)
    model.other.weight = model.linear.weight
    with pytest.raises(UsageError, match=r"other\.weight"):
        FSDP(model)


def check_the_fused_loss_is_refused():
    """It would read this rank's rows of the output head and take them for the vocabulary."""
    model = FSDP(make_model())
    with pytest.raises(UsageError, match="of the output head's 67 rows"):
        language_model_loss(model.module, *make_batches(1)[0])


def check_exchange_direct_and_native():
    world_size, rank = dist.get_world_size(), dist.get_rank()
    for rows in (0, 1, 2, 3, 7, 12):
        generator = torch.Generator().manual_seed(rows)
        whole = torch.randn(rows, 5, generator=generator)
        gradients = torch.randn(world_size, rows, 5, generator=generator)
        for native in (False, True):
            exchange = RowExchange(native=native)
            own = exchange.rows_of(rank, rows)
            if rows:
                assert torch.equal(exchange.gather(whole[own].clone(), rows), whole)
                mean = exchange.start_mean(gradients[rank].clone(), torch.float32).wait()
                torch.testing.assert_close(mean, gradients.mean(dim=0)[own], rtol=1e-5, atol=1e-6)
        covered = [i for r in range(world_size) for i in range(rows)[exchange.rows_of(r, rows)]]
        assert covered == list(range(rows))


ON_TWO = (
    check_equals_plain_average_bit_for_bit,
    check_equals_single_process,
    check_equals_fully_shard,
    check_layers_keep_type_and_name_and_hold_shards,
    check_gradients_after_a_step,
    check_at_most_two_layers_ahead,
    check_messages_have_the_compute_dtype,
    check_gradient_accumulation,
    check_clipping_by_the_global_norm,
    check_odd_layers,
    check_an_error_in_a_layer_leaves_the_shards_in_place,
    check_a_weight_shared_with_another_kind_of_layer_is_refused,
    check_the_fused_loss_is_refused,
    check_exchange_direct_and_native,
)
ON_THREE = (
    check_equals_plain_average_bit_for_bit,
    check_layers_keep_type_and_name_and_hold_shards,
    check_gradients_after_a_step,
    check_gradient_accumulation,
    check_clipping_by_the_global_norm,
    check_odd_layers,
    check_layers_of_other_kinds,
    check_exchange_direct_and_native,
)


@pytest.mark.slow
@pytest.mark.parametrize("check", ON_TWO, ids=names(ON_TWO))
def test_on_two_ranks(check):
    expect_success(check, ON_TWO, 2)


@pytest.mark.slow
@pytest.mark.parametrize("check", ON_THREE, ids=names(ON_THREE))
def test_on_three_ranks(check):
    expect_success(check, ON_THREE, 3)
