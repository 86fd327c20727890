"""The layers a Transformer is built from: Linear, Embedding, RMSNorm and the two feed-forward networks.

Initialization follows the handout: normal distributions cut at three standard deviations, norms at one, no biases.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cs336_basics.model.functional import rms_norm, silu, swiglu_gate
from cs336_basics.model.fused import fused_rms_norm, fused_swiglu_gate


def truncated_normal(
    shape: tuple[int, ...], std: float, device: torch.device | None, dtype: torch.dtype | None
) -> nn.Parameter:
    """A parameter drawn from a normal distribution of mean 0, cut at three standard deviations."""
    weight = torch.empty(shape, device=device, dtype=dtype)
    return nn.Parameter(nn.init.trunc_normal_(weight, mean=0.0, std=std, a=-3 * std, b=3 * std))


class Linear(nn.Module):
    """y = x Wᵀ without a bias.

    Args:
        d_in, d_out: sizes of the last dimension of the input and the output.
        device, dtype: where and in which type the weight is made; None takes torch's defaults.
    """

    def __init__(
        self, d_in: int, d_out: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        std = math.sqrt(2 / (d_in + d_out))
        self.weight: Float[Tensor, "d_out d_in"] = truncated_normal((d_out, d_in), std, device, dtype)

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        return x @ self.weight.T

    def extra_repr(self) -> str:
        d_out, d_in = self.weight.shape
        return f"d_in={d_in}, d_out={d_out}"


class Embedding(nn.Module):
    """A table of one vector per token id, initialized from N(0, `std`²) cut at three standard deviations.

    Args:
        vocab_size: number of ids.
        d_model: length of a vector.
        device, dtype: where and in which type the weight is made; None takes torch's defaults.
        std: standard deviation of the initial values.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight: Float[Tensor, "vocab_size d_model"] = truncated_normal((vocab_size, d_model), std, device, dtype)

    def forward(self, token_ids: Int[Tensor, "..."]) -> Float[Tensor, "... d_model"]:
        if self.weight.is_cuda:
            # On a GPU the backward of index_select adds in no fixed order; that of indexing sorts, and repeats exactly.
            return self.weight[token_ids]
        # On a CPU the backward of index_select adds whole rows, which is several times faster.
        return self.weight.index_select(0, token_ids.flatten()).view(*token_ids.shape, -1)

    def extra_repr(self) -> str:
        vocab_size, d_model = self.weight.shape
        return f"vocab_size={vocab_size}, d_model={d_model}"


class RMSNorm(nn.Module):
    """Root-mean-square normalization with a learned gain, computed in at least float32; see `functional.rms_norm`.

    Args:
        d_model: size of the normalized, last dimension.
        eps: added to the mean square.
        device, dtype: where and in which type the gain is made; None takes torch's defaults.
    """

    def __init__(
        self, d_model: int, eps: float = 1e-5, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight: Float[Tensor, " d_model"] = nn.Parameter(torch.ones(d_model, device=device, dtype=dtype))

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        if torch.compiler.is_compiling():
            return rms_norm(x, self.weight, self.eps)
        return fused_rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"d_model={self.weight.shape[0]}, eps={self.eps}"


class SwiGLU(nn.Module):
    """The gated feed-forward network W2(silu(W1 x) · W3 x) (Shazeer 2020, equation 6).

    Args:
        d_model: size of the input and the output.
        d_ff: size of the hidden layer.
        device, dtype: where and in which type the weights are made; None takes torch's defaults.
    """

    def __init__(
        self, d_model: int, d_ff: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.w1 = Linear(d_model, d_ff, device, dtype)
        self.w2 = Linear(d_ff, d_model, device, dtype)
        self.w3 = Linear(d_model, d_ff, device, dtype)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        gate = swiglu_gate if torch.compiler.is_compiling() else fused_swiglu_gate
        return self.w2(gate(self.w1(x), self.w3(x)))


class SiLUFeedForward(nn.Module):
    """The ungated feed-forward network W2(silu(W1 x)), for the SwiGLU ablation.

    Args:
        d_model: size of the input and the output.
        d_ff: size of the hidden layer; 3/2 of a SwiGLU's gives the same number of parameters.
        device, dtype: where and in which type the weights are made; None takes torch's defaults.
    """

    def __init__(
        self, d_model: int, d_ff: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.w1 = Linear(d_model, d_ff, device, dtype)
        self.w2 = Linear(d_ff, d_model, device, dtype)

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        return self.w2(silu(self.w1(x)))
