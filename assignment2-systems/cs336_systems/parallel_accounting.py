"""How far each kind of parallelism scales: compute and communication times of the feed-forward layers, and when the
first hides the second.

The model is L blocks of two matrices, W_in (D, F) and W_out (F, D), applied to a batch of B tokens: for large models
nearly all FLOPs lie there. The notation is that of "How to Scale Your Model", part 5
(https://jax-ml.github.io/scaling-book/training), and of the CS336 handout:

    B    tokens in the whole batch             N    devices
    D    width of the residual stream          X    of them along the data (DP, FSDP) axis
    F    width of the feed-forward layer       Y    of them along the tensor axis; N = X · Y
    L    blocks                                C    FLOP/s of one device
    b    bytes per element sent (bf16: 2)      W    bytes/s one device receives while it sends as many

A product of an (m, n) and an (n, p) matrix takes 2·m·n·p FLOPs. The backward pass has two products for each of the
forward pass: one for the gradient of the input, one for that of the weight. So, spread over N devices,

    compute, forward   2 · 2·B·D·F · L / (N·C) = 4·B·D·F·L / (N·C)            backward: twice that.

An all-gather or a reduce-scatter of V bytes (the size of the whole array) sends V·(n-1)/n bytes through every device
of a ring of n; the formulas take its limit V, so a collective lasts V/W, and an all-reduce, which is a reduce-scatter
and then an all-gather, 2·V/W. Communication can go on while a device computes, so a strategy is compute-bound while
communication takes no longer than compute. C/W, the FLOPs per byte received, decides all of it.
"""

import math
from dataclasses import dataclass
from typing import Literal

from cs336_basics.command_line import UsageError

Phase = Literal["forward", "backward"]
PHASES: tuple[Phase, ...] = ("forward", "backward")


@dataclass(frozen=True)
class FeedForward:
    """The layers and the batch that the formulas are about.

    Attributes:
        tokens: B, tokens in the whole batch. d_model: D. d_ff: F. num_layers: L.
        bytes_per_element: b, of activations, weights and gradients as they are sent; 2 for bf16.

    Raises:
        UsageError: a value is not above 0.
    """

    tokens: float
    d_model: int
    d_ff: int
    num_layers: int = 1
    bytes_per_element: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (value > 0 and math.isfinite(value)):
                raise UsageError(f"{name} is {value}; allowed is any number above 0")

    @property
    def weight_bytes(self) -> float:
        """Bytes of all matrices of all blocks as they are sent: 2·D·F·L·b."""
        return 2.0 * self.d_model * self.d_ff * self.num_layers * self.bytes_per_element

    @property
    def activation_bytes(self) -> float:
        """Bytes of the residual stream of the whole batch, once per block: B·D·L·b."""
        return float(self.tokens) * self.d_model * self.num_layers * self.bytes_per_element


def compute_flops(layers: FeedForward, phase: Phase) -> float:
    """FLOPs of one pass over the whole batch: 4·B·D·F·L forward, 8·B·D·F·L backward."""
    forward = 4.0 * layers.tokens * layers.d_model * layers.d_ff * layers.num_layers
    return forward if phase == "forward" else 2 * forward


def compute_time(layers: FeedForward, devices: float, flops: float, phase: Phase) -> float:
    """Seconds of one pass when `devices` share its FLOPs evenly, each at `flops` FLOP/s."""
    return compute_flops(layers, phase) / (devices * flops)


def dp_bytes(layers: FeedForward, phase: Phase) -> float:
    """Bytes a device receives in data parallelism: nothing forward; an all-reduce of the gradients backward.

    backward: 2 · 2·D·F·L·b = 4·D·F·L·b.
    """
    return 0.0 if phase == "forward" else 2 * layers.weight_bytes


def fsdp_bytes(layers: FeedForward, phase: Phase, tensor: float = 1) -> float:
    """Bytes a device receives in fully sharded data parallelism (ZeRO-3), of weights already split `tensor` ways.

    forward:  an all-gather of the weights, 2·D·F·L·b / Y.
    backward: that again, and a reduce-scatter of the gradients: twice the forward's.

    (ZeRO-1 and ZeRO-2 reduce-scatter the gradients and all-gather the weights once a step: the bytes of `dp_bytes`.)
    """
    return layers.weight_bytes / tensor * (1 if phase == "forward" else 2)


def tp_bytes(layers: FeedForward, phase: Phase, data: float = 1) -> float:
    """Bytes a device receives in tensor parallelism, with a batch already split `data` ways.

    W_in is split by columns and W_out by rows (Shoeybi et al. 2019, https://arxiv.org/abs/1909.08053, section 3), so a
    block ends in a sum over devices: an all-reduce of its (B/X, D) output forward, and of its input's gradient
    backward. (As an all-gather before the block and a reduce-scatter after it, the same bytes.)

    either phase: 2 · B·D·L·b / X.
    """
    return 2 * layers.activation_bytes / data


def dp_most_devices(layers: FeedForward, flops: float, bandwidth: float) -> float:
    """The N up to which data parallelism is compute-bound: B/N >= C/W.

    Backward: 8·B·D·F·L/(N·C) >= 4·D·F·L·b/W, so B/N >= (b/2) · C/W tokens per device; b = 2 gives C/W. The forward
    pass sends nothing. D, F and L cancel: only the tokens per device count.
    """
    return layers.tokens * bandwidth / flops * 2 / layers.bytes_per_element


def fsdp_most_devices(layers: FeedForward, flops: float, bandwidth: float) -> float:
    """The N up to which FSDP is compute-bound: B/N >= C/W, as in data parallelism.

    Forward: 4·B·D·F·L/(N·C) >= 2·D·F·L·b/W, so B/N >= (b/2) · C/W. Backward: both sides double.
    """
    return dp_most_devices(layers, flops, bandwidth)


def tp_most_devices(layers: FeedForward, flops: float, bandwidth: float) -> float:
    """The Y up to which tensor parallelism is compute-bound: Y <= F · W/C.

    Forward: 4·B·D·F·L/(Y·C) >= 2·B·D·L·b/W, so Y <= (2/b) · F · W/C. The batch cancels: more tokens do not help.
    Backward: compute doubles and communication does not, so the forward pass decides.
    """
    return layers.d_ff * bandwidth / flops * 2 / layers.bytes_per_element


def mixed_time(
    layers: FeedForward, data: float, tensor: float, bandwidth: float, axes: tuple[float, float] = (1, 1)
) -> float:
    """Seconds of communication in a forward pass of FSDP over X and tensor parallelism over Y, one after the other.

    (2·D·F·L·b/Y) / (M_X·W) + (2·B·D·L·b/X) / (M_Y·W)

    Args:
        layers: the layers and the batch.
        data, tensor: X and Y.
        bandwidth: W, of one axis of links.
        axes: (M_X, M_Y), the axes of links that each kind of traffic has for itself, as on a TPU's torus.
    """
    weights = fsdp_bytes(layers, "forward", tensor) / axes[0]
    activations = tp_bytes(layers, "forward", data) / axes[1]
    return (weights + activations) / bandwidth


def mixed_best_data(layers: FeedForward, devices: float, axes: tuple[float, float] = (1, 1)) -> float:
    """X_opt = sqrt(B/F · M_X/M_Y · N): the X that makes `mixed_time` least, as a real number.

    With Y = N/X the time is 2·D·L·b/W · (F·X/(N·M_X) + B/(X·M_Y)). Its derivative in X is 0 where the two terms are
    equal, that is where weights and activations take the same time.
    """
    return math.sqrt(layers.tokens / layers.d_ff * axes[0] / axes[1] * devices)


def mixed_most_devices(
    layers: FeedForward, flops: float, bandwidth: float, axes: tuple[float, float] = (1, 1), overlapped: bool = False
) -> float:
    """The N up to which FSDP + tensor parallelism at X_opt is compute-bound: B/N >= 4·(C/W)² / (M_X·M_Y·F).

    At X_opt, `mixed_time` is 2·D·L·b/W · 2·sqrt(B·F/(N·M_X·M_Y)). Compute takes 4·B·D·F·L/(N·C). So compute-bound is

        sqrt(B·F/N) >= b · C/W / sqrt(M_X·M_Y),  that is  B/N >= b² · (C/W)² / (M_X·M_Y·F).

    The backward pass doubles compute and the weights' traffic, not the activations', so the forward pass decides.
    Beyond the N at which X_opt or Y would fall below 1, one of the pure strategies is the better one.

    Args:
        layers: the layers and the batch.
        flops, bandwidth: C and W.
        axes: (M_X, M_Y), as for `mixed_time`.
        overlapped: both kinds of traffic flow at the same time and the longer one counts: a quarter of the batch is
            enough.
    """
    per_byte = flops / bandwidth * layers.bytes_per_element / (2 if overlapped else 1)
    return layers.tokens * layers.d_ff * axes[0] * axes[1] / per_byte**2
