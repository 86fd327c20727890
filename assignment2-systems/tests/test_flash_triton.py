"""The Triton kernels of flash attention against attention written out in float64, on a GPU or interpreted."""

import pytest
import torch

from cs336_basics.command_line import UsageError
from cs336_systems.flash_attention import TiledFlashAttention, TritonFlashAttention, flash_attention, triton_ops

from .test_flash_tiled import make_inputs, reference
from .triton_cases import DEVICE, argument_names, compile_for_hopper, needs_cuda, needs_triton, triton_runner


@pytest.fixture(scope="module")
def run_triton():
    with triton_runner() as run:
        yield run


def attend(leading, queries, keys, d, dtype, is_causal, transposed=False):
    """Output, log-sum-exp and gradients, as a list of tensors on the CPU; inputs as `make_inputs` makes them."""
    q, k, v, grad = (x.detach().to(DEVICE) for x in make_inputs(leading, queries, keys, d, dtype))
    if transposed:  # the layout in which a model's projections leave heads
        q, k, v, grad = (x.transpose(-3, -2).contiguous().transpose(-3, -2) for x in (q, k, v, grad))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    out = TritonFlashAttention.apply(*inputs, is_causal)
    (lse,) = [x for x in out.grad_fn.saved_tensors if x.shape == q.shape[:-1]]
    return [x.detach().cpu() for x in (out, lse, *torch.autograd.grad(out, inputs, grad))]


def check(results, shape, dtype, is_causal, tolerance):
    q, k, v, grad = make_inputs(*shape, dtype)
    out, lse = reference(q, k, v, is_causal)
    expected = [out, lse, *torch.autograd.grad(out, (q, k, v), grad.double())]
    for name, actual, right in zip(("O", "L", "dQ", "dK", "dV"), results, expected, strict=True):
        assert actual.dtype == (torch.float32 if name == "L" else dtype)
        torch.testing.assert_close(
            actual.double(), right.double(), rtol=tolerance, atol=tolerance, msg=f"{name}: {{}}".format
        )


SHAPES = [
    ((2,), 32, 32, 16),  # lengths of whole tiles
    ((2, 2), 49, 49, 40),  # neither lengths nor head dimension fill their tiles
    ((), 33, 33, 64),
    ((2,), 20, 70, 16),  # more keys than queries
    ((2,), 70, 20, 16),  # more queries than keys
    ((1, 2, 1), 1, 37, 8),
]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_fp32_equals_the_definition(run_triton, shape, is_causal):
    results = run_triton(attend, *shape, torch.float32, is_causal)
    check(results, shape, torch.float32, is_causal, tolerance=2e-5)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[3]])
def test_fp16_equals_the_definition(run_triton, shape, is_causal):
    results = run_triton(attend, *shape, torch.float16, is_causal)
    check(results, shape, torch.float16, is_causal, tolerance=4e-3)


def test_heads_in_a_models_layout(run_triton):
    shape = ((1, 3), 20, 20, 16)
    check(run_triton(attend, *shape, torch.float32, True, True), shape, torch.float32, True, tolerance=2e-5)


def test_no_keys_give_zero_and_no_gradient(run_triton):
    out, lse, *gradients = run_triton(attend, (2,), 3, 0, 16, torch.float32, True)
    assert (lse == -torch.inf).all()
    assert not any(x.any() for x in (out, *gradients))


def saved_shapes():
    q, k, v, _ = (x.detach().to(DEVICE).requires_grad_() for x in make_inputs((2,), 32, 32, 16))
    return [tuple(x.shape) for x in TritonFlashAttention.apply(q, k, v, True).grad_fn.saved_tensors]


def test_no_matrix_of_scores_is_kept(run_triton):
    assert sorted(run_triton(saved_shapes)) == sorted([(2, 32)] + 4 * [(2, 32, 16)])


def gradients_of_every_backward():
    """Those of each backward pass behind either forward pass."""
    q, k, v, grad = (x.detach().to(DEVICE) for x in make_inputs((2,), 21, 21, 16))
    inputs = [x.requires_grad_() for x in (q, k, v)]
    results = {}
    for function in (TiledFlashAttention, TritonFlashAttention):
        for backward in ("triton", "pytorch"):
            out = function.apply(*inputs, True, backward)
            gradients = torch.autograd.grad(out, inputs, grad)
            results[function.__name__, backward] = [x.cpu() for x in gradients]
    return results


def test_every_backward_goes_with_every_forward(run_triton):
    q, k, v, grad = make_inputs((2,), 21, 21, 16)
    expected = torch.autograd.grad(reference(q, k, v, True)[0], (q, k, v), grad.double())
    for gradients in run_triton(gradients_of_every_backward).values():
        for actual, right in zip(gradients, expected, strict=True):
            torch.testing.assert_close(actual, right, rtol=2e-5, atol=2e-5)


def check_operators():
    q, k, v, grad = (x.detach().to(DEVICE) for x in make_inputs((2, 2), 9, 7, 16))
    out, lse = triton_ops.triton_forward(q, k, v, True)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(triton_ops.triton_forward, (q, k, v, True), test_utils=checks)
    torch.library.opcheck(triton_ops.triton_backward, (grad, q, k, v, out, lse, True), test_utils=checks)


def test_the_operators_tell_the_compiler_what_they_return(run_triton):
    run_triton(check_operators)


def refusals():
    """What is said of inputs that the kernels cannot take."""
    messages = []
    for x in (torch.zeros(1, 4, 300, device=DEVICE), torch.zeros(1, 4, 8, device=DEVICE, dtype=torch.float64)):
        with pytest.raises(UsageError) as refused:
            TritonFlashAttention.apply(x, x, x)
        messages.append(str(refused.value))
    return messages


def test_inputs_of_other_sizes_and_types_are_refused(run_triton):
    too_wide, too_exact = run_triton(refusals)
    assert "300" in too_wide
    assert "256" in too_wide
    assert "float64" in too_exact


def test_without_a_gpu_or_the_interpreter_it_says_what_is_missing(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x = torch.zeros(1, 4, 8)
    for attempt in (lambda: TritonFlashAttention.apply(x, x, x), lambda: flash_attention(x, x, x, True, "triton")):
        with pytest.raises(UsageError, match=r"device 'cpu'.*CUDA device.*TRITON_INTERPRET=1"):
            attempt()


def types_of_arguments(kernel):
    """Tensors of bf16, and of fp32 for what is kept per query."""
    pointers = dict.fromkeys(("Q", "K", "V", "Out", "GradOut", "GradQ", "GradK", "GradV"), "*bf16")
    types = pointers | {"LogSumExp": "*fp32", "RowSum": "*fp32", "softmax_scale": "fp32"}
    return {name: types.get(name, "i32") for name in argument_names(kernel)}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("which", ["forward_kernel", "keys_kernel", "queries_kernel"])
def test_kernels_compile_to_hoppers_matrix_instructions(which, monkeypatch, tmp_path):
    from cs336_systems.flash_attention import tile_sizes, triton_backward, triton_forward

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module = triton_forward if which == "forward_kernel" else triton_backward
    tiles = {
        "forward_kernel": tile_sizes.FORWARD,
        "keys_kernel": tile_sizes.BACKWARD_KEYS,
        "queries_kernel": tile_sizes.BACKWARD_QUERIES,
    }
    block_q, block_k, warps, stages = tiles[which][256][0]
    even = {f"EVEN_{dimension}": dimension == "D" for dimension in "QKD"}
    blocks = {"BLOCK_Q": block_q, "BLOCK_K": block_k, "BLOCK_D": 128}
    constants = {"IS_CAUSAL": True, "PRECISION": "tf32", **even, **blocks}
    kernel = getattr(module, which)
    compiled = compile_for_hopper(kernel, types_of_arguments(kernel), constants, num_warps=warps, num_stages=stages)
    assert "wgmma.mma_async" in compiled.asm["ptx"]  # tensor cores …
    assert "cp.async" in compiled.asm["ptx"]  # … fed by loads that run ahead
    assert compiled.metadata.shared <= 227 * 1024


@needs_triton
@pytest.mark.parametrize("which", ["forward_kernel", "keys_kernel", "queries_kernel"])
def test_every_head_dimension_and_type_has_tiles(which):
    from cs336_systems.flash_attention import triton_backward, triton_forward

    kernel = getattr(triton_forward if which == "forward_kernel" else triton_backward, which)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        sizes = []
        for block_d in (16, 32, 64, 128, 256):
            kernel.nargs = {"Q": torch.empty(0, dtype=dtype)}
            configs = kernel.prune_configs({"BLOCK_D": block_d, "IS_CAUSAL": True})
            sizes.append(max(config.kwargs["BLOCK_Q"] * config.kwargs["BLOCK_K"] for config in configs))
        assert sizes == sorted(sizes, reverse=True)


@needs_triton
def test_the_kernel_of_row_sums_compiles(monkeypatch, tmp_path):
    from cs336_systems.flash_attention.triton_backward import row_sum_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compile_for_hopper(row_sum_kernel, types_of_arguments(row_sum_kernel), {"BLOCK_Q": 64, "BLOCK_D": 128})


@needs_cuda
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize(
    "shape", [((4,), 128, 128, 64), ((2, 3), 1000, 1000, 128), ((2,), 300, 777, 80), ((2,), 130, 130, 256)]
)
def test_bf16_equals_the_definition(shape, is_causal):
    check(attend(*shape, torch.bfloat16, is_causal), shape, torch.bfloat16, is_causal, tolerance=3e-2)


@needs_cuda
@pytest.mark.parametrize("is_causal", [False, True])
def test_fp32_of_the_usual_size_equals_the_definition(is_causal):
    shape = ((4,), 128, 128, 64)
    check(attend(*shape, torch.float32, is_causal), shape, torch.float32, is_causal, tolerance=1e-3)
