"""Memory of parameters, gradients, optimizer state and activations on one device under each strategy.

The shares follow ZeRO (Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054, section 5 and figure 1): with Psi
parameters, mixed-precision Adam holds 2·Psi bytes of bf16 parameters, 2·Psi of bf16 gradients and K·Psi = 12·Psi of
fp32 parameters, momentum and variance. Everything is in bytes.
"""

from dataclasses import dataclass
from typing import Literal

from cs336_basics.command_line import UsageError
from cs336_systems.parallel_accounting import FeedForward

Strategy = Literal["dp", "zero1", "zero2", "fsdp", "tp", "pp"]


@dataclass(frozen=True)
class BytesPerParameter:
    """Bytes held for each parameter; the default is mixed-precision Adam, 16 in all."""

    parameters: float = 2
    gradients: float = 2
    optimizer: float = 12


FP32_MASTER = BytesPerParameter(parameters=4, gradients=4, optimizer=8)
"""Training under autocast: fp32 weights, accumulated gradients and two moments; also 16 bytes in all."""


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device, by use."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer + self.activations


def state_memory(
    num_parameters: float, strategy: Strategy, devices: int, per_parameter: BytesPerParameter | None = None
) -> DeviceMemory:
    """What one device holds of the training state, activations aside.

    ====== ========== ========= =========
           parameters gradients optimizer
    ====== ========== ========= =========
    dp     all        all       all
    zero1  all        all       1/N
    zero2  all        1/N       1/N
    fsdp   1/N        1/N       1/N        (ZeRO-3)
    tp, pp 1/N        1/N       1/N        (other cuts of the same sum)
    ====== ========== ========= =========

    Under fsdp the gathered layers in flight come on top (`FSDP` holds at most the current one and those prefetched).

    Args:
        num_parameters: Psi.
        strategy: how the state is spread.
        devices: N, over which it is spread.
        per_parameter: bytes per parameter; None is mixed-precision Adam.
    """
    if devices < 1:
        raise UsageError(f"devices is {devices}; allowed is any whole number of at least 1")
    each = per_parameter or BytesPerParameter()
    shares = {"dp": (1, 1, 1), "zero1": (1, 1, devices), "zero2": (1, devices, devices)}
    by = shares.get(strategy, (devices, devices, devices))
    return DeviceMemory(
        each.parameters * num_parameters / by[0],
        each.gradients * num_parameters / by[1],
        each.optimizer * num_parameters / by[2],
    )


def feed_forward_parameters(layers: FeedForward) -> int:
    """Parameters of the L blocks of two matrices: 2·D·F·L."""
    return 2 * layers.d_model * layers.d_ff * layers.num_layers


def saved_activations(layers: FeedForward) -> float:
    """Bytes kept for the backward pass of the whole batch: each matrix's input, B·(D + F)·L·b."""
    return float(layers.tokens) * (layers.d_model + layers.d_ff) * layers.num_layers * layers.bytes_per_element


def feed_forward_memory(
    layers: FeedForward,
    strategy: Strategy,
    devices: int,
    per_parameter: BytesPerParameter | None = None,
    microbatches: int | None = None,
) -> DeviceMemory:
    """State and saved activations of the feed-forward layers on one device.

    dp, zero1, zero2, fsdp: each device has B/N of the tokens, so 1/N of the activations.
    tp: the hidden layer (B, F) is split, the residual stream (B, D) is on every device.
    pp: a stage has L/N of the layers and keeps the activations of the microbatches in flight: with m of them, 1F1B
    holds min(N, m) of m (Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, section 2.2), GPipe all m.

    Args:
        layers, strategy, devices, per_parameter: as for `state_memory`.
        microbatches: m, of pp; None takes N.
    """
    state = state_memory(feed_forward_parameters(layers), strategy, devices, per_parameter)
    whole = saved_activations(layers)
    if strategy == "tp":
        streams = float(layers.tokens) * layers.num_layers * layers.bytes_per_element
        activations = streams * (layers.d_model + layers.d_ff / devices)
    elif strategy == "pp":
        parts = microbatches or devices
        activations = whole / devices * min(devices, parts) / parts
    else:
        activations = whole / devices
    return DeviceMemory(state.parameters, state.gradients, state.optimizer, activations)


def half_sharded_memory(layers: FeedForward, devices: int) -> float:
    """Bytes on one device when fp32 weights, gradients and moments and half of the activations are spread over
    `devices` and the other half is not: 16·P/N + A/2 · (1 + 1/N), the CS336 handout's communication accounting (b)."""
    state = state_memory(feed_forward_parameters(layers), "fsdp", devices, FP32_MASTER)
    return state.total + saved_activations(layers) / 2 * (1 + 1 / devices)


def fewest_devices(layers: FeedForward, memory: float) -> int:
    """The least N for which `half_sharded_memory` stays below `memory` bytes.

    16·P/N + A/2 + A/(2N) < M, so N > (16·P + A/2) / (M - A/2).

    Raises:
        UsageError: the half of the activations that is on every device does not fit.
    """
    whole, kept = half_sharded_memory(layers, 1), saved_activations(layers) / 2
    if kept >= memory:
        raise UsageError(f"memory is {memory:.3g} bytes; the unsharded half of the activations alone needs {kept:.3g}")
    return int((whole - kept) // (memory - kept)) + 1


XXL = {"d_model": 16_384, "d_ff": 53_248, "num_layers": 126}
"""The handout's configuration for its communication accounting: the feed-forward layers of a 405B model."""
