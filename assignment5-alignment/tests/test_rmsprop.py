"""RMSprop against torch's."""

import pytest
import torch

from cs336_alignment.training.config import TrainingConfig
from cs336_alignment.training.optimizer import make_optimizer
from cs336_alignment.training.rmsprop import RMSprop
from cs336_basics.command_line import UsageError


def _parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in ((3, 4), (5,))]


def _set_gradients(parameters, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter.dtype)


@pytest.mark.parametrize(("lr", "alpha", "eps"), [(1e-2, 0.99, 1e-8), (0.3, 0.5, 1e-2), (1.0, 0.0, 1.0)])
def test_steps_are_torchs(lr, alpha, eps):
    ours, theirs = _parameters(), _parameters()
    optimizers = [
        (ours, RMSprop(ours, lr, alpha, eps)),
        (theirs, torch.optim.RMSprop(theirs, lr, alpha, eps)),
    ]
    for step in range(5):
        for parameters, optimizer in optimizers:
            _set_gradients(parameters, step)
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_restored_optimizer_goes_on_exactly(dtype):
    unbroken, restored = _parameters(dtype), _parameters(dtype)
    first, second = RMSprop(unbroken, 0.1), RMSprop(restored, 0.1)
    for step in range(4):
        if step == 2:
            state = second.state_dict()
            second = RMSprop(restored, 0.1)
            second.load_state_dict(state)
        for parameters, optimizer in ((unbroken, first), (restored, second)):
            _set_gradients(parameters, step)
            optimizer.step()
    torch.testing.assert_close(unbroken, restored, rtol=0, atol=0)
    assert {state["square_avg"].dtype for state in second.state.values()} == {torch.promote_types(dtype, torch.float32)}


def test_parameters_without_a_gradient_stay():
    parameters = _parameters()
    before = parameters[1].detach().clone()
    parameters[0].grad = torch.ones_like(parameters[0])
    RMSprop(parameters, 0.1).step()
    assert torch.equal(parameters[1], before)


@pytest.mark.parametrize(("settings", "named"), [({"lr": -1.0}, "lr"), ({"alpha": 1.0}, "alpha"), ({"eps": -1}, "eps")])
def test_settings_out_of_range_are_refused(settings, named):
    with pytest.raises(UsageError, match=f"RMSprop: {named}"):
        RMSprop(_parameters(), **settings)


def test_the_flag_chooses_it():
    module = torch.nn.LayerNorm(3)
    optimizer = make_optimizer(module, TrainingConfig(optimizer="rmsprop", lr=0.2, beta2=0.9))
    assert isinstance(optimizer, RMSprop)
    assert [(group["lr"], group["alpha"], len(group["params"])) for group in optimizer.param_groups] == [(0.2, 0.9, 2)]
    with pytest.raises(UsageError, match="weight_decay"):
        TrainingConfig(optimizer="rmsprop", weight_decay=0.1)
