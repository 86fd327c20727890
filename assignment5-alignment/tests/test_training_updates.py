"""One update: microbatches against the whole batch, clipping, schedules, divergence, the order of batches."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.log_probs import get_response_log_probs
from cs336_alignment.training.batch_order import batch_indices
from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.optimizer import learning_rate, make_optimizer
from cs336_alignment.training.replica import Replica
from cs336_alignment.training.update import update
from cs336_basics.trainer.trainer import DivergenceError

from .tiny_models import tiny_model


def uneven_batch(rows=6, length=9, seed=0):
    """Rows of which different numbers of tokens count."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 320, (rows, length + 1), generator=generator)
    mask = torch.arange(length) < torch.arange(1, rows + 1)[:, None]
    return ids[:, :-1], ids[:, 1:], mask


def token_mean_update(model, parts, **keywords):
    """An update on the mean over all tokens that count, in parts of these sizes."""
    inputs, labels, mask = uneven_batch(sum(parts))
    replica = Replica(model, TrainingConfig(lr=0.05))
    total = int(mask.sum())

    def loss_share(rows):
        log_probs = get_response_log_probs(replica.forward, inputs[rows], labels[rows])["log_probs"]
        return -(log_probs * mask[rows]).sum() / total, {"tokens": mask[rows].sum(), "rows": len(inputs[rows])}

    bounds = np.cumsum([0, *parts])
    microbatches = [slice(a, b) for a, b in itertools.pairwise(bounds)]
    return update(replica, microbatches, loss_share, lr=0.05, max_grad_norm=1.0, **keywords)


@pytest.mark.parametrize("parts", [[3, 3], [2, 2, 2], [1, 4, 1], [1] * 6])
def test_microbatches_give_the_update_of_the_whole_batch(parts):
    whole_model, model = tiny_model(), tiny_model()
    whole = token_mean_update(whole_model, [6])
    outcome = token_mean_update(model, parts)
    assert outcome.loss == pytest.approx(whole.loss, rel=1e-13)
    assert outcome.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-12)
    assert outcome.metrics == whole.metrics == {"tokens": 21.0, "rows": 6.0}
    for ours, theirs in zip(model.parameters(), whole_model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
        assert ours.grad is None


def test_the_update_is_that_of_torch():
    """Loss by Hugging Face, clipping and AdamW by torch."""
    model, reference = tiny_model(), tiny_model()
    outcome = token_mean_update(model, [2, 4])
    inputs, labels, mask = uneven_batch()
    labels = torch.where(mask, labels, -100)
    loss = torch.nn.functional.cross_entropy(reference(inputs).logits.flatten(0, 1), labels.flatten())
    loss.backward()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.05, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    assert norm > 1  # so clipping matters
    optimizer.step()
    assert outcome.loss == pytest.approx(loss.item(), rel=1e-12)
    assert outcome.gradient_norm == pytest.approx(norm.item(), rel=1e-10)
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_changes_nothing(bad):
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    replica = Replica(model, TrainingConfig())

    def loss_share(scale):
        return replica.forward(torch.tensor([[1, 2, 3]])).logits.mean() * scale, {}

    with pytest.raises(DivergenceError, match="loss became"):
        update(replica, [1.0, bad], loss_share, lr=0.1, max_grad_norm=1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert update(replica, [1.0, 2.0], loss_share, lr=0.1, max_grad_norm=0).gradient_norm > 0


def test_autocast_computes_in_bfloat16_and_keeps_fp32_weights():
    model = tiny_model(dtype=torch.float32)
    types = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
    exact = token_mean_update(tiny_model(dtype=torch.float32), [3, 3])
    outcome = token_mean_update(model, [3, 3], autocast="bfloat16")
    assert types == [torch.bfloat16] * 2
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert outcome.loss == pytest.approx(exact.loss, rel=0.02)
    assert outcome.loss != exact.loss


def test_matrices_decay_and_vectors_do_not():
    model = tiny_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {}
    for group in make_optimizer(model, TrainingConfig(weight_decay=0.3)).param_groups:
        for parameter in group["params"]:
            decay[names[id(parameter)]] = group["weight_decay"]
    assert set(decay) == set(names.values())
    assert all(value == (0.0 if "norm" in name or name.endswith("bias") else 0.3) for name, value in decay.items())


@pytest.mark.parametrize("warmup", [{"warmup_steps": 10}, {"warmup_steps": 50, "warmup_fraction": 10 / 110}])
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_schedules(schedule, warmup):
    config = TrainingConfig(lr=1.0, min_lr=0.1, schedule=schedule, **warmup)
    rates = [learning_rate(update_index, 110, config) for update_index in range(130)]
    assert rates[:9] == pytest.approx([n / 10 for n in range(1, 10)])
    assert rates[9] == 1.0
    middle = {"constant": 1.0, "cosine": 0.55, "linear": 0.55}[schedule]
    assert rates[59] == pytest.approx(middle)
    quarter = {"constant": 1.0, "cosine": 0.55 + 0.45 * math.sqrt(0.5), "linear": 0.775}[schedule]
    assert rates[34] == pytest.approx(quarter)
    assert rates[109:] == pytest.approx([1.0 if schedule == "constant" else 0.1] * 21)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**40))
def test_every_epoch_takes_every_example_once(num_examples, batch_size, seed):
    steps = 3 * num_examples // batch_size + 2
    stream = np.concatenate([batch_indices(step, num_examples, batch_size, seed) for step in range(steps)])
    assert len(stream) == steps * batch_size
    for start in range(0, len(stream) - num_examples + 1, num_examples):
        assert sorted(stream[start : start + num_examples]) == list(range(num_examples))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {(seed, step): batch_indices(step, 50, 50, seed).tolist() for seed in (0, 1) for step in (0, 1)}
    assert len({tuple(order) for order in orders.values()}) == 4
    assert batch_indices(1, 50, 50, 0).tolist() == orders[0, 1]
