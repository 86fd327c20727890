"""Rotary position embeddings (RoPE)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cs336_basics.command_line import UsageError
from cs336_basics.model.functional import rotate_pairs, upcast


class RotaryEmbedding(nn.Module):
    """Rotates the pair (x[2k], x[2k+1]) at position p by p · theta^(-2k/dim) radians (Su et al. 2021, equation 34).

    The cosines and sines are tables in float32, whatever type the rest of a model is cast to, and no part of the state
    dict: they follow from the three arguments.

    Args:
        context_length: number of positions, from 0.
        dim: size of the rotated, last dimension (a head's width); even.
        theta: base of the frequencies.
        device: where the tables are made.
    """

    def __init__(
        self, context_length: int, dim: int, theta: float = 10_000.0, device: torch.device | None = None
    ) -> None:
        super().__init__()
        if dim % 2:
            raise UsageError(f"rotary embeddings rotate pairs, so dim must be even; got {dim}")
        self.context_length, self.dim, self.theta = context_length, dim, theta
        self.register_buffer("cos_sin", torch.empty(context_length, dim // 2, 2, device=device), persistent=False)
        self._build_table(self.cos_sin.device)

    cos_sin: Float[Tensor, "context_length pairs 2"]

    def _build_table(self, device: torch.device) -> None:
        """Fill the table on `device`. Angles are taken in float64: in float32 they lose digits at far positions."""
        if device.type == "meta":
            return
        pairs = torch.arange(0, self.dim, 2, dtype=torch.float64, device="cpu")
        positions = torch.arange(self.context_length, dtype=torch.float64, device="cpu")
        angles = torch.outer(positions, self.theta ** (-pairs / self.dim))
        self.cos_sin = torch.stack((angles.cos(), angles.sin()), dim=-1).float().to(device)

    def _apply(self, *args, **kwargs) -> "RotaryEmbedding":
        # Every cast or move of a module comes through here: build again, so that `model.bfloat16()` keeps exact tables
        # and `to_empty` does not leave them unset.
        super()._apply(*args, **kwargs)
        self._build_table(self.cos_sin.device)
        return self

    def forward(
        self, x: Float[Tensor, "... seq dim"], token_positions: Int[Tensor, "... seq"] | None = None
    ) -> Float[Tensor, "... seq dim"]:
        """Rotate `x`.

        Args:
            x: queries or keys.
            token_positions: the position of each, broadcast over the leading dimensions; None counts from 0.

        Raises:
            UsageError: a position lies outside 0 … context_length-1 (on a CPU; an accelerator stops by an assertion).
        """
        if self.cos_sin.device != x.device:  # loaded with assign=True into a model made on the meta device
            self._build_table(x.device)
        cos_sin = self._look_up(x.shape[-2], token_positions)
        if torch.compiler.is_compiling() or x.device.type == "mps":
            return rotate_pairs(x, *cos_sin.unbind(-1))
        # A rotation is a product of complex numbers: one pass over x where the pairwise form takes seven, and its
        # backward pass needs nothing of x.
        pairs = torch.view_as_complex(upcast(x).unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * torch.view_as_complex(cos_sin)).flatten(-2).to(x.dtype)

    def _look_up(self, length: int, token_positions: Int[Tensor, "... seq"] | None) -> Float[Tensor, "... seq pairs 2"]:
        if token_positions is None:
            if length > self.context_length:
                raise UsageError(f"{length} tokens do not fit the context length of {self.context_length}")
            return self.cos_sin[:length]
        try:
            rows = self.cos_sin.index_select(0, token_positions.flatten())
        except IndexError:
            low, high = token_positions.min(), token_positions.max()
            raise UsageError(
                f"token positions run from {low} to {high}; allowed are 0 to {self.context_length - 1}"
            ) from None
        return rows.unflatten(0, token_positions.shape)

    def extra_repr(self) -> str:
        return f"context_length={self.context_length}, dim={self.dim}, theta={self.theta}"
