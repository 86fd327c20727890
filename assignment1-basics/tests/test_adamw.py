"""AdamW against `torch.optim.AdamW` and against the handout's formulas written out."""

import copy
import io
import math

import pytest
import torch

from cs336_basics.command_line import UsageError
from cs336_basics.optimizer import AdamW
from cs336_basics.trainer import AdamW as adamw_module

SETTINGS = [
    {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
    {"lr": 3e-2, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.3},
    {"lr": 1e-2, "betas": (0.0, 0.0), "eps": 1e-8, "weight_decay": 0.0},
]


def _parameters(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (3,), (), (1025, 513)]  # the last spans several of the CPU path's blocks
    return [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype)) for shape in shapes]


def _run(optimizer, parameters, steps, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.grad = (parameter.detach().double() + noise).to(parameter.dtype)
        optimizer.step()


@pytest.mark.parametrize("settings", SETTINGS)
def test_equals_torch_over_many_steps(settings):
    ours, theirs = _parameters(), _parameters()
    _run(AdamW(ours, **settings), ours, 40)
    _run(torch.optim.AdamW(theirs, **settings), theirs, 40)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-11, atol=1e-12)


def test_fp32_stays_close_to_torch():
    ours, theirs = _parameters(torch.float32), _parameters(torch.float32)
    _run(AdamW(ours, lr=1e-3, weight_decay=0.1), ours, 100)
    _run(torch.optim.AdamW(theirs, lr=1e-3, weight_decay=0.1), theirs, 100)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)


def test_follows_the_formulas_of_the_handout():
    lr, beta1, beta2, eps, decay = 0.1, 0.9, 0.99, 1e-12, 1e-5
    parameter = torch.nn.Parameter(torch.tensor([1.5, -2.0], dtype=torch.float64))
    optimizer = AdamW([parameter], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    value, m, v = [1.5, -2.0], [0.0, 0.0], [0.0, 0.0]
    for t in range(1, 21):
        gradient = [math.sin(3 * t), math.cos(t) * 5]
        for i in range(2):
            m[i] = beta1 * m[i] + (1 - beta1) * gradient[i]
            v[i] = beta2 * v[i] + (1 - beta2) * gradient[i] ** 2
            value[i] -= lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) * m[i] / (math.sqrt(v[i]) + eps)
            value[i] -= lr * decay * value[i]
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    # The handout decays after the update, the paper before: they part by lr * decay * update, 1e-6 of a step's length.
    assert parameter.tolist() == pytest.approx(value, abs=20 * lr * decay * lr)


def test_groups_have_settings_of_their_own():
    ours, theirs = _parameters(), _parameters()

    def groups(p):
        return [{"params": p[:2], "weight_decay": 0.5}, {"params": p[2:], "lr": 1e-4, "betas": (0.5, 0.6)}]

    mine, reference = AdamW(groups(ours), lr=1e-2), torch.optim.AdamW(groups(theirs), lr=1e-2)
    _run(mine, ours, 5)
    _run(reference, theirs, 5)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_schedules_change_the_rate_between_steps():
    ours, theirs = _parameters(), _parameters()
    mine, reference = AdamW(ours), torch.optim.AdamW(theirs)
    for step, lr in enumerate((0.0, 1e-2, 1e-3)):
        for optimizer, parameters in ((mine, ours), (reference, theirs)):
            optimizer.param_groups[0]["lr"] = lr
            _run(optimizer, parameters, 1, seed=step)
    torch.testing.assert_close(ours[3], theirs[3], rtol=1e-12, atol=1e-12)


def test_parameters_without_gradient_are_left_alone():
    used, unused = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([used, unused], lr=0.1, weight_decay=0.5)
    used.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(unused, torch.ones(3))
    assert not torch.equal(used, torch.ones(3))
    assert unused not in optimizer.state


def test_non_contiguous_parameters():
    base = torch.randn(6, 4, dtype=torch.float64)
    ours, theirs = torch.nn.Parameter(base.clone().t()), torch.nn.Parameter(base.clone().t())
    assert not ours.is_contiguous()
    _run(AdamW([ours]), [ours], 5)
    _run(torch.optim.AdamW([theirs]), [theirs], 5)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_state_dict_restores_the_run_exactly():
    parameters = _parameters(torch.float32)
    optimizer = AdamW(parameters, lr=1e-2)
    _run(optimizer, parameters, 3)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in parameters]
    restored = AdamW(copies, lr=777.0)
    restored.load_state_dict(torch.load(file, weights_only=True))
    _run(optimizer, parameters, 3, seed=5)
    _run(restored, copies, 3, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(parameters, copies, strict=True))


def test_bf16_parameters_have_fp32_moments_and_are_rounded_once():
    parameter = torch.nn.Parameter(torch.randn(200, generator=torch.Generator().manual_seed(0)).bfloat16())
    before = parameter.detach().clone()
    optimizer = AdamW([parameter], lr=0.1)
    wide = torch.nn.Parameter(before.float())
    parameter.grad = torch.randn(200, generator=torch.Generator().manual_seed(1)).bfloat16()
    wide.grad = parameter.grad.float()
    optimizer.step()
    torch.optim.AdamW([wide], lr=0.1).step()
    assert optimizer.state[parameter]["exp_avg"].dtype == torch.float32
    torch.testing.assert_close(parameter.detach(), wide.detach().bfloat16(), rtol=2**-7, atol=0)
    moments = optimizer.state[parameter]["exp_avg"].clone()
    other = AdamW([torch.nn.Parameter(before)], lr=0.1)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    (restored,) = other.state.values()
    assert torch.equal(restored["exp_avg"], moments)
    assert restored["exp_avg"].dtype == torch.float32


def test_the_step_is_blockwise_and_still_exact(monkeypatch):
    results = []
    for block in (64, 10**9):
        monkeypatch.setattr(adamw_module, "_CPU_BLOCK", block)
        parameters = [torch.nn.Parameter(torch.linspace(-1, 1, 1000))]
        _run(AdamW(parameters), parameters, 4)
        results.append(parameters[0].detach())
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-7)


def test_closure_is_called_with_gradients_on():
    parameter = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = AdamW([parameter], lr=0.1)

    def closure():
        loss = (parameter**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert parameter.item() < 2.0


def test_sparse_gradients_are_refused():
    table = torch.nn.Parameter(torch.zeros(4, 2))
    table.grad = torch.sparse_coo_tensor([[1]], [[1.0, 1.0]], (4, 2), check_invariants=True)
    with pytest.raises(RuntimeError, match="sparse"):
        AdamW([table]).step()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"lr": -1e-3}, "lr.*-0.001"),
        ({"lr": math.nan}, "lr.*nan"),
        ({"eps": -1.0}, "eps.*-1.0"),
        ({"weight_decay": -0.1}, "weight_decay.*-0.1"),
        ({"betas": (1.0, 0.9)}, r"betas.*\(1.0, 0.9\)"),
        ({"betas": (0.9, -0.1)}, "betas"),
        ({"betas": (0.9,)}, "betas"),
    ],
)
def test_bad_settings_are_named(setting, named):
    with pytest.raises(UsageError, match=named):
        AdamW([torch.nn.Parameter(torch.zeros(1))], **setting)
    with pytest.raises(UsageError, match=named):
        AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))], **setting}])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_equals_torch():
    ours = [torch.nn.Parameter(p.detach().float().cuda()) for p in _parameters()]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    for optimizer, parameters in ((AdamW(ours, lr=1e-2), ours), (torch.optim.AdamW(theirs, lr=1e-2), theirs)):
        for step in range(10):
            for i, parameter in enumerate(parameters):
                torch.manual_seed(100 * step + i)
                parameter.grad = torch.randn(parameter.shape, device="cuda")
            optimizer.step()
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)
