"""Accounting of parallelism: against counting by brute force, published numbers, and the limits of each formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_systems import parallel_accounting as accounting
from cs336_systems.communication.collectives import COLLECTIVES
from cs336_systems.hardware import PRESETS, Hardware, hardware
from cs336_systems.parallel_accounting import PHASES, FeedForward
from cs336_systems.parallel_memory import (
    FP32_MASTER,
    XXL,
    BytesPerParameter,
    feed_forward_memory,
    feed_forward_parameters,
    fewest_devices,
    half_sharded_memory,
    saved_activations,
    state_memory,
)
from cs336_systems.parallel_planner import HEADER, communication_share, largest_split, main, make_plans

LAYERS = FeedForward(tokens=240, d_model=24, d_ff=48, num_layers=3)
MACHINE = Hardware(flops=1e6, bandwidth=1e5, memory=1e9, source="a test")

quick = settings(deadline=None, derandomize=True, max_examples=60)
layer_shapes = st.builds(
    FeedForward, st.integers(64, 10**7), st.integers(1, 20_000), st.integers(64, 80_000), st.integers(1, 128),
    st.sampled_from([1, 2, 4]),
)  # fmt: skip
machines = st.builds(Hardware, st.floats(1e12, 1e15), st.floats(1e9, 1e12), st.just(8e10), st.just("drawn"))


class Ring:
    """Ranks in a ring, each sending to its neighbor only; counts the bytes that reach each rank."""

    def __init__(self, ranks):
        self.ranks, self.received = ranks, np.zeros(ranks, dtype=int)

    def _pass_on(self, parts, chunk_at, take):
        sent = [parts[rank][chunk_at(rank)].copy() for rank in range(self.ranks)]
        for rank in range(self.ranks):
            neighbor = (rank + 1) % self.ranks
            self.received[neighbor] += sent[rank].nbytes
            take(parts[neighbor], chunk_at(rank), sent[rank])

    def reduce_scatter(self, parts):
        """`parts[rank][chunk]`; afterwards rank r holds the sum of chunk r + 1."""
        for step in range(self.ranks - 1):
            self._pass_on(parts, lambda r, s=step: (r - s) % self.ranks, lambda mine, c, x: mine[c].__iadd__(x))

    def all_gather(self, parts):
        """Rank r holds chunk r + 1; afterwards all hold all."""
        for step in range(self.ranks - 1):
            self._pass_on(parts, lambda r, s=step: (r + 1 - s) % self.ranks, lambda mine, c, x: mine.__setitem__(c, x))


def _ring_bytes(ranks, num_bytes, *collectives):
    """Run the collectives on real data, check them, and return what each rank received."""
    ring = Ring(ranks)
    values = np.random.default_rng(0).integers(0, 99, (ranks, ranks, num_bytes // 2 // ranks)).astype(np.int16)
    parts = [list(rows.copy()) for rows in values]
    total = values.sum(axis=0, dtype=np.int16)
    if "reduce_scatter" in collectives:
        ring.reduce_scatter(parts)
        assert all((parts[r][(r + 1) % ranks] == total[(r + 1) % ranks]).all() for r in range(ranks))
    else:
        parts = [
            [total[c] if c == (r + 1) % ranks else np.zeros_like(total[c]) for c in range(ranks)] for r in range(ranks)
        ]
    if "all_gather" in collectives:
        ring.all_gather(parts)
        assert all((np.array(part) == total).all() for part in parts)
    assert len(set(ring.received)) == 1
    return int(ring.received[0])


@pytest.mark.parametrize("ranks", [2, 3, 4, 6])
def test_bytes_are_those_of_simulated_rings(ranks):
    """A device of a ring of n receives (n-1)/n of what the formulas, which take the limit, say."""
    weights = [LAYERS.d_model * LAYERS.d_ff * LAYERS.bytes_per_element] * 2 * LAYERS.num_layers
    share = (ranks - 1) / ranks
    gradients = sum(_ring_bytes(ranks, w, "reduce_scatter", "all_gather") for w in weights)
    assert gradients == pytest.approx(share * accounting.dp_bytes(LAYERS, "backward"))
    assert accounting.dp_bytes(LAYERS, "forward") == 0

    gathered = sum(_ring_bytes(ranks, w, "all_gather") for w in weights)
    scattered = sum(_ring_bytes(ranks, w, "reduce_scatter") for w in weights)
    assert gathered == pytest.approx(share * accounting.fsdp_bytes(LAYERS, "forward"))
    assert gathered + scattered == pytest.approx(share * accounting.fsdp_bytes(LAYERS, "backward"))

    stream = LAYERS.tokens * LAYERS.d_model * LAYERS.bytes_per_element
    summed = LAYERS.num_layers * _ring_bytes(ranks, stream, "reduce_scatter", "all_gather")
    for phase in PHASES:
        assert summed == pytest.approx(share * accounting.tp_bytes(LAYERS, phase))

    size = 240 * ranks
    for name, parts in (
        ("all-reduce", ("reduce_scatter", "all_gather")), ("all-gather", ("all_gather",)),
        ("reduce-scatter", ("reduce_scatter",)),
    ):  # fmt: skip
        assert _ring_bytes(ranks, size, *parts) == pytest.approx(COLLECTIVES[name].bus_factor(ranks) * size)


def test_flops_are_those_of_the_products():
    """Count multiply-adds of the matrix products of a forward and a backward pass, each by its shapes."""
    b, d, f = LAYERS.tokens, LAYERS.d_model, LAYERS.d_ff
    products = {
        "forward": [((b, d), (d, f)), ((b, f), (f, d))],
        "backward": [((b, d), (d, f)), ((f, b), (b, d)), ((b, f), (f, d)), ((d, b), (b, f))],
    }
    for phase in PHASES:
        counted = sum(2 * left[0] * left[1] * right[1] for left, right in products[phase])
        assert accounting.compute_flops(LAYERS, phase) == LAYERS.num_layers * counted
        assert accounting.compute_time(LAYERS, 4, 1e3, phase) == pytest.approx(LAYERS.num_layers * counted / 4e3)


@quick
@given(layer_shapes, machines)
def test_at_the_threshold_compute_and_communication_take_the_same_time(layers, machine):
    pair = (machine.flops, machine.bandwidth)
    data, tensor = accounting.dp_most_devices(layers, *pair), accounting.tp_most_devices(layers, *pair)
    for kind in ("dp", "fsdp"):
        if data > 1:
            assert communication_share(layers, machine, kind, data, 1) == pytest.approx(1)
    assert accounting.fsdp_most_devices(layers, *pair) == data
    if tensor > 1:
        assert communication_share(layers, machine, "fsdp", 1, tensor) == pytest.approx(1)
    for axes in ((1, 1), (2, 1), (3, 2)):
        most = accounting.mixed_most_devices(layers, *pair, axes)
        best = accounting.mixed_best_data(layers, most, axes)
        seconds = accounting.mixed_time(layers, best, most / best, machine.bandwidth, axes)
        assert seconds == pytest.approx(accounting.compute_time(layers, most, machine.flops, "forward"))
        assert accounting.mixed_most_devices(layers, *pair, axes, overlapped=True) == pytest.approx(4 * most)


@quick
@given(layer_shapes, st.integers(2, 5000), st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_no_split_beats_the_best_one(layers, devices, axes):
    best = accounting.mixed_best_data(layers, devices, axes)
    least = accounting.mixed_time(layers, best, devices / best, 1.0, axes)
    for data in np.geomspace(best / 50, best * 50, 101):
        assert accounting.mixed_time(layers, data, devices / data, 1.0, axes) >= least * (1 - 1e-9)


@quick
@given(layer_shapes, machines)
def test_the_largest_whole_split_is_the_one_that_counting_finds(layers, machine):
    budget = accounting.tp_most_devices(layers, machine.flops, machine.bandwidth)
    data, tensor = largest_split(layers, machine)
    most = accounting.mixed_most_devices(layers, machine.flops, machine.bandwidth)
    assert data * tensor <= max(1, most * (1 + 1e-9))
    if tensor > 1:
        assert communication_share(layers, machine, "fsdp", data, tensor) <= 1 + 1e-9
        for other in range(2, min(2000, math.floor(budget) + 2)):
            bigger = data * tensor // other + 1  # the least X that would make more devices
            seconds = accounting.mixed_time(layers, bigger, other, machine.bandwidth)
            assert seconds > accounting.compute_time(layers, bigger * other, machine.flops, "forward") * (1 - 1e-9)


@quick
@given(layer_shapes, st.floats(1e12, 1e15), st.floats(1e9, 1e12), st.floats(1.01, 100))
def test_reach_grows_with_bandwidth_and_shrinks_with_speed(layers, flops, bandwidth, factor):
    for most in (accounting.dp_most_devices, accounting.tp_most_devices, accounting.mixed_most_devices):
        here = most(layers, flops, bandwidth)
        assert most(layers, flops, bandwidth * factor) > here > most(layers, flops * factor, bandwidth)


def test_only_what_the_formulas_name_matters():
    pair = (MACHINE.flops, MACHINE.bandwidth)
    wider = FeedForward(LAYERS.tokens, 7 * LAYERS.d_model, LAYERS.d_ff, 5 * LAYERS.num_layers)
    for most in (accounting.dp_most_devices, accounting.tp_most_devices, accounting.mixed_most_devices):
        assert most(wider, *pair) == most(LAYERS, *pair)
    assert accounting.dp_most_devices(LAYERS, *pair) == LAYERS.tokens / 10
    assert accounting.tp_most_devices(LAYERS, *pair) == LAYERS.d_ff / 10
    assert accounting.mixed_most_devices(LAYERS, *pair) == LAYERS.tokens * LAYERS.d_ff / (4 * 10**2)


def test_zero_s_published_memory():
    """Figure 1 of Rajbhandari et al. 2020: 7.5 billion parameters on 64 devices."""
    published = {"dp": 120, "zero1": 31.4, "zero2": 16.6, "fsdp": 1.9}
    for strategy, gigabytes in published.items():
        assert round(state_memory(7.5e9, strategy, 64).total / 1e9, 1) == gigabytes


def test_memory_is_counted_array_by_array():
    """Lists of (elements on the first device, bytes each), against the formulas."""
    n, parameters = 4, feed_forward_parameters(LAYERS)
    assert parameters == LAYERS.num_layers * 2 * LAYERS.d_model * LAYERS.d_ff
    inputs = LAYERS.num_layers * LAYERS.tokens * np.array([LAYERS.d_model, LAYERS.d_ff])  # of W_in and of W_out
    assert saved_activations(LAYERS) == 2 * inputs.sum()
    expected = {
        "dp": 16 * parameters + 2 * inputs.sum() / n,
        "zero1": (2 + 2 + 12 / n) * parameters + 2 * inputs.sum() / n,
        "zero2": (2 + 14 / n) * parameters + 2 * inputs.sum() / n,
        "fsdp": 16 / n * parameters + 2 * inputs.sum() / n,
        "tp": 16 / n * parameters + 2 * (inputs[0] + inputs[1] / n),
    }
    for strategy, total in expected.items():
        assert feed_forward_memory(LAYERS, strategy, n).total == pytest.approx(total)
    # 1F1B with 8 microbatches on 4 stages: 4 in flight, each of 1/8 of the tokens, for a quarter of the layers.
    pipeline = feed_forward_memory(LAYERS, "pp", 4, microbatches=8)
    assert pipeline.activations == pytest.approx(2 * inputs.sum() / 4 * 4 / 8)
    assert feed_forward_memory(LAYERS, "pp", 4, microbatches=2).activations == pytest.approx(2 * inputs.sum() / 4)
    one = [feed_forward_memory(LAYERS, strategy, 1) for strategy in (*expected, "pp")]
    assert len({memory.total for memory in one}) == 1
    assert state_memory(10, "fsdp", 2, BytesPerParameter(4, 4, 8)).total == 80


def test_the_handout_s_exercise():
    """XXL: P = 2 · 16384 · 53248 · 126 parameters of 16 bytes; about 3.5 TB, or 44 devices of 80 GB."""
    layers = FeedForward(tokens=4096, **XXL)
    state = state_memory(feed_forward_parameters(layers), "dp", 1, FP32_MASTER)
    assert state.total == 16 * 219_848_638_464
    assert math.ceil(state.total / 80e9) == 44
    needed = fewest_devices(layers, 95e9)
    assert half_sharded_memory(layers, needed) < 95e9 <= half_sharded_memory(layers, needed - 1)
    assert fewest_devices(FeedForward(1, **XXL), 1e15) == 1
    with pytest.raises(UsageError, match=r"memory is 1e\+09 bytes; .* alone needs"):
        fewest_devices(layers, 1e9)
    # X = 16 and Y = 4, two axes for FSDP and one for TP: T_math >= T_comms with the two kinds of traffic overlapped.
    v5p = hardware("tpu-v5p")
    at_least = FeedForward(16 * v5p.intensity / 2, **XXL)  # B/X >= C/(W·M_X)
    compute = accounting.compute_time(at_least, 64, v5p.flops, "forward")
    assert compute == pytest.approx(accounting.fsdp_bytes(at_least, "forward", 4) / (2 * v5p.bandwidth))
    assert compute > accounting.tp_bytes(at_least, "forward", 16) / v5p.bandwidth


@pytest.mark.parametrize("name", PRESETS)
def test_plans_are_compute_bound_and_one_device_more_is_not(name):
    layers = FeedForward(4_000_000, **XXL)
    machine = hardware(name)
    dp, fsdp, tp, mixed = make_plans(layers, machine)
    for plan, kind in ((dp, "dp"), (fsdp, "fsdp"), (tp, "fsdp"), (mixed, "fsdp")):
        data, tensor = plan.split
        assert plan.most_devices == data * tensor
        assert communication_share(layers, machine, kind, data, tensor) <= 1 + 1e-9
        if plan is not mixed:
            more = (data + 1, 1) if tensor == 1 and plan is not tp else (1, tensor + 1)
            assert communication_share(layers, machine, kind, *more) > 1 - 1e-9
    assert dp.memory > fsdp.memory


def test_the_program_writes_table_and_plot(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["--csv", "plan.csv"])
    printed = capsys.readouterr().out
    for name in ("| DP ", "| FSDP ", "| TP ", "| FSDP + TP ", "Beyond the 80 GB of a device there: DP, TP"):
        assert name in printed
    assert (tmp_path / "parallel_plan.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plan.csv").read_text().splitlines()[0] == ",".join(HEADER)
    main(["--tokens", "10", "--d_model", "8", "--d_ff", "16", "--hardware", "a100-infiniband"])
    assert "| FSDP + TP  |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--tokens", "0"], "tokens is 0.0"),
        (["--d_ff", "-4"], "d_ff is -4"),
        (["--flops", "nan"], "flops is nan"),
        (["--bandwidth", "0"], "bandwidth is 0.0"),
    ],
)
def test_bad_values_are_named(arguments, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=named):
        main(arguments)
    assert not list(tmp_path.iterdir())


def test_unknown_hardware_and_no_devices_are_named():
    with pytest.raises(UsageError, match="'abacus' is unknown; allowed are h100-nvlink"):
        hardware("abacus")
    with pytest.raises(UsageError, match="devices is 0"):
        state_memory(1e9, "dp", 0)
