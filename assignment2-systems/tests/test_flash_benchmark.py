"""The speed benchmark of flash attention: its counts, and a whole small run on a CPU."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cs336_basics.command_line import UsageError
from cs336_basics.model.attention import plain_attention


@pytest.fixture(scope="module")
def benchmark():
    path = Path(__file__).parents[1] / "benchmarks" / "flash_attention.py"
    spec = importlib.util.spec_from_file_location("flash_attention_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_operations_are_those_of_the_matrix_products(benchmark):
    shape = benchmark.Shape(d_head=16, length=32, batch_size=2, heads=3, causal=False)
    q, k, v = torch.randn(3, 2, 3, 32, 16)
    with FlopCounterMode(display=False) as counter:
        plain_attention(q, k, v, False)
    assert shape.flops("forward") == counter.get_total_flops()
    # The backward pass has four products and computes the scores again: 5 in all, each half of the forward pass.
    assert shape.flops("forward + backward") == 3.5 * counter.get_total_flops()
    causal = benchmark.Shape(d_head=16, length=32, batch_size=2, heads=3, causal=True)
    assert causal.flops("forward") == shape.flops("forward") / 2


def test_a_small_run_makes_the_whole_table(benchmark, tmp_path, capsys):
    flags = ["--smoke", "--device", "cpu", "--milliseconds", "1", "--out", str(tmp_path)]
    benchmark.main(flags)
    rows = list(csv.DictReader((tmp_path / "flash_attention.csv").read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2 * 2
    for row in rows:
        speeds = {name: float(row[f"{name}, TFLOP/s"]) for name in ("ours", "sdpa flash", "sdpa math")}
        assert min(speeds.values()) > 0
        assert float(row["ours / sdpa flash"]) == pytest.approx(speeds["ours"] / speeds["sdpa flash"])
        assert float(row["ours / matmul"]) > 0
    assert "float32, 512 tokens of width 128" in capsys.readouterr().out
    before = (tmp_path / "results.jsonl").read_text()
    benchmark.main([*flags, "--resume"])
    assert (tmp_path / "results.jsonl").read_text() == before


def test_shapes_left_out_for_lack_of_time_are_named(benchmark, tmp_path, capsys):
    benchmark.main(["--smoke", "--device", "cpu", "--max_minutes", "1e-9", "--out", str(tmp_path)])
    assert "8 shapes were left out" in capsys.readouterr().out


def test_results_that_differ_stop_the_benchmark(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "flash_attention", lambda q, k, v, causal: plain_attention(q, k, 1.01 * v, causal))
    shape = benchmark.Shape(d_head=16, length=32, batch_size=1, heads=1, causal=True)
    with pytest.raises(UsageError, match="ours differs"):
        benchmark.measure(shape, torch.device("cpu"), "float32", 1)


def test_a_cpu_is_refused_in_one_sentence(benchmark, tmp_path):
    with pytest.raises(UsageError, match="needs a CUDA device, and 'cpu' gives cpu"):
        benchmark.main(["--device", "cpu", "--out", str(tmp_path / "out")])
    with pytest.raises(UsageError, match="max_minutes is 0"):
        benchmark.main(["--smoke", "--device", "cpu", "--max_minutes", "0"])
    assert not (tmp_path / "out").exists()
