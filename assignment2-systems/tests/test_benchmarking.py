"""The benchmark: sizes, timings, ranges, traces, memory, tables, and cases that do not fit."""

import csv
import inspect
import io
import json
import runpy
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from cs336_basics.accounting import num_parameters
from cs336_basics.command_line import UsageError
from cs336_basics.model import BasicsTransformerLM, TransformerConfig
from cs336_basics.model.attention import plain_attention
from cs336_systems.attention_choice import ATTENTION_NAMES, attention_function
from cs336_systems.model_sizes import SIZES, model_size
from cs336_systems.out_of_memory import is_out_of_memory
from cs336_systems.profiling import benchmark, mixed_precision
from cs336_systems.profiling.annotate import annotate_modules, attention_in_ranges, no_range, nvtx_range
from cs336_systems.profiling.measure import OUT_OF_MEMORY, Plan, measure, measure_in_fresh_process
from cs336_systems.profiling.memory import (
    check_snapshot_device,
    current_bytes,
    memory_snapshot,
    peak_bytes,
    peak_growth,
)
from cs336_systems.profiling.timing import Timing, time_calls
from cs336_systems.profiling.workload import Case, Workload
from cs336_systems.result_log import ResultLog
from cs336_systems.result_table import ResultTable

CPU = torch.device("cpu")
CONFIG = TransformerConfig(vocab_size=40, context_length=8, d_model=16, num_layers=2, num_heads=2, d_ff=24)


class Recorder:
    """Notes when ranges begin and end."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    @contextmanager
    def __call__(self, name):
        self.events.append(("begin", name))
        yield
        self.events.append(("end", name))

    def paths(self) -> list[str]:
        """Every range with those around it, in order; fails if one does not end where it should."""
        inside: list[str] = []
        paths = []
        for kind, name in self.events:
            if kind == "begin":
                inside.append(name)
                paths.append("/".join(inside))
            else:
                assert inside.pop() == name
        assert not inside
        return paths


# Sizes


@pytest.mark.parametrize(
    ("name", "millions"),
    [("small", 128.6), ("medium", 423.2), ("large", 969.4), ("xl", 1998.2), ("2.7B", 3406.8), ("10B", 9946)],
)
def test_named_sizes(name, millions):
    config = model_size(name, 512)
    assert num_parameters(config) / 1e6 == pytest.approx(millions, rel=1e-3)
    assert (config.vocab_size, config.context_length) == (10_000, 512)


def test_numbers_of_a_size_can_be_replaced():
    assert model_size("small", 64, num_layers=3, vocab_size=7).num_layers == 3
    with pytest.raises(UsageError, match="'huge' is unknown; allowed are tiny"):
        model_size("huge", 64)
    with pytest.raises(UsageError, match="not a multiple"):
        model_size("small", 64, num_heads=7)


# Tables and logs


def test_tables_parse_back():
    table = ResultTable(["name", "time, ms", "note"], [["a|b", 1.25, None], ["c", 123456.789, 'quoted "x", y']])
    header, *rows = csv.reader(io.StringIO(table.csv()))
    assert header == ["name", "time, ms", "note"]
    assert rows == [["a|b", "1.25", ""], ["c", "123456.789", 'quoted "x", y']]
    lines = table.markdown().splitlines()
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == ["c", "123,457", 'quoted "x", y']
    assert lines[1].startswith("|:-") or lines[1].startswith("|--")
    latex = table.latex()
    assert latex.startswith(r"\begin{tabular}")
    assert latex.rstrip().endswith(r"\end{tabular}")
    assert latex.count(r"\\") == 3


def test_tables_are_written_in_three_forms(tmp_path):
    paths = ResultTable(["n"], [[1], [2]]).write(tmp_path, "numbers")
    assert [path.name for path in paths] == ["numbers.md", "numbers.tex", "numbers.csv"]
    assert (tmp_path / "numbers.csv").read_text() == "n\n1\n2\n"
    assert ResultTable(["n"]).markdown().startswith("| n")


def test_a_log_goes_on_where_it_was_cut_off(tmp_path):
    path = tmp_path / "results.jsonl"
    log = ResultLog(path, resume=False)
    log.add({"n": 1}, {"seconds": 0.5})
    with open(path, "a") as file:
        file.write('{"case": {"n": 2}, "resu')
    resumed = ResultLog(path, resume=True)
    assert resumed.find({"n": 1}) == {"seconds": 0.5}
    assert resumed.find({"n": 2}) is None
    resumed.add({"n": 2}, {"seconds": 0.25})
    assert [json.loads(line)["case"]["n"] for line in path.read_text().splitlines()] == [1, 2]
    assert ResultLog(path, resume=False).find({"n": 1}) is None
    path.write_text("no json\n")
    with pytest.raises(UsageError, match="cannot be resumed"):
        ResultLog(path, resume=True)


# Times


def test_statistics_of_timings():
    timing = Timing((1.0, 2.0, 6.0))
    assert (timing.mean, timing.median) == (3.0, 2.0)
    assert timing.std == pytest.approx(7**0.5)
    assert Timing((1.0,)).std == 0


def test_calls_are_warmed_up_timed_and_bounded():
    calls = []
    timing = time_calls(lambda: calls.append("call"), CPU, warmup=2, repeats=3, prepare=lambda: calls.append("prepare"))
    assert calls == ["prepare", "call"] * 5
    assert len(timing.seconds) == 3
    assert all(second >= 0 for second in timing.seconds)
    assert len(time_calls(lambda: None, CPU, warmup=0, repeats=50, max_seconds=0).seconds) == 1


@pytest.mark.parametrize(
    ("mode", "phases"),
    [
        ("inference", ["forward"]),
        ("forward", ["forward"]),
        ("forward_backward", ["forward", "backward"]),
        ("step", ["forward", "backward", "optimizer"]),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_workload_does_what_its_mode_says(mode, phases, dtype):
    workload = Workload(Case("test", CONFIG, 2, mode, dtype), CPU)
    before = {name: p.detach().clone() for name, p in workload.model.named_parameters()}
    seconds = workload.run()
    assert list(seconds) == phases
    assert all(value > 0 for value in seconds.values())
    has_gradients = [p.grad is not None for p in workload.model.parameters()]
    assert all(has_gradients) if "backward" in phases else not any(has_gradients)
    changed = [not torch.equal(before[name], p) for name, p in workload.model.named_parameters()]
    assert all(changed) if mode == "step" else not any(changed)
    assert workload.loss().requires_grad


def test_a_measurement_is_complete():
    result = measure(Case("test", CONFIG, 2, "step"), Plan(CPU, warmup=1, steps=3))
    assert {phase: len(seconds) for phase, seconds in result["seconds"].items()} == {
        "forward": 3, "backward": 3, "optimizer": 3
    }  # fmt: skip
    assert result["peak_bytes"] >= result["bytes_before"] > 0


# Attention


@pytest.mark.parametrize("name", ATTENTION_NAMES)
@pytest.mark.parametrize("causal", [True, False])
def test_every_attention_choice_is_attention(name, causal):
    q, k, v = torch.randn(3, 2, 4, 20, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
    torch.testing.assert_close(attention_function(name)(q, k, v, causal), expected)
    assert torch.equal(attention_in_ranges(no_range)(q, k, v, causal), plain_attention(q, k, v, causal))


# Ranges


def test_ranges_nest_as_the_model_does():
    recorder = Recorder()
    workload = Workload(Case("test", CONFIG, 2, "step"), CPU)
    with workload.in_ranges(recorder):
        workload.run()
    paths = recorder.paths()
    model = "forward/BasicsTransformerLM"
    attention = f"{model}/layers.0/layers.0.attn"
    assert [path for path in paths if path.startswith(f"{model}/layers.0")] == [
        f"{model}/layers.0",
        f"{model}/layers.0/layers.0.ln1",
        attention,
        *(f"{attention}/layers.0.attn.{name}_proj" for name in "qkv"),
        # One module rotates queries and keys in all layers; its range has the name of its first place.
        *[f"{attention}/positional_encoder"] * 2,
        *(f"{attention}/attention {step}" for step in ("scores", "softmax", "values")),
        f"{attention}/layers.0.attn.output_proj",
        f"{model}/layers.0/layers.0.ln2",
        f"{model}/layers.0/layers.0.ffn",
        *(f"{model}/layers.0/layers.0.ffn/layers.0.ffn.{name}" for name in ("w1", "w3", "w2")),
    ]
    assert f"{model}/layers.1/layers.1.attn/attention softmax" in paths
    outer = [path for path in paths if "/" not in path or path == "forward/loss"]
    assert outer == ["forward", "forward/loss", "backward", "optimizer"]
    assert f"{model}/token_embeddings" in paths
    assert f"{model}/lm_head" in paths


def test_ranges_leave_the_model_as_it_was():
    model = BasicsTransformerLM.from_config(CONFIG)
    functions = [layer.attn.attention_fn for layer in model.layers]
    token_ids = torch.arange(8)[None]
    expected = model(token_ids)
    recorder = Recorder()
    with annotate_modules(model, recorder):
        torch.testing.assert_close(model(token_ids), expected)
    seen = len(recorder.events)
    assert seen
    with annotate_modules(model, no_range, split_attention=True):
        assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    model(token_ids)
    assert len(recorder.events) == seen
    assert [layer.attn.attention_fn for layer in model.layers] == functions
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_ranges_end_when_a_module_fails():
    model = BasicsTransformerLM.from_config(CONFIG)
    closed = []

    @contextmanager
    def make_range(name):
        yield
        closed.append(name)

    with annotate_modules(model, make_range), pytest.raises(IndexError):
        model(torch.full((1, 4), 99))
    assert closed == ["token_embeddings", "BasicsTransformerLM"]


def test_nvtx_ranges_can_be_entered():
    if not torch.cuda.is_available() and "nvtx" in str(type(torch.cuda.nvtx._nvtx)):
        pytest.skip("this build of torch has no NVTX")
    model = BasicsTransformerLM.from_config(CONFIG)
    with annotate_modules(model, nvtx_range):
        model(torch.arange(8)[None])


def test_traces_have_the_ranges_and_the_operators(tmp_path):
    case = Case("test", CONFIG, 2, "step")
    measure(case, Plan(CPU, warmup=0, steps=1, trace_folder=tmp_path))
    events = json.loads((tmp_path / f"{case.name}.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("optimizer") == 2  # two runs
    assert names.count("attention scores") == 2 * CONFIG.num_layers
    table = (tmp_path / f"{case.name}.operators.txt").read_text()
    assert "aten::mm" in table
    assert "Self CPU Mem" in table


# Memory


def test_peaks_follow_allocations():
    before = peak_bytes(CPU)
    assert before >= 0.9 * current_bytes(CPU) > 0
    block = torch.ones(100_000_000, dtype=torch.uint8)
    assert peak_bytes(CPU) >= current_bytes(CPU) - 10_000_000
    assert current_bytes(CPU) > block.nbytes
    del block
    growth = peak_growth(lambda: torch.ones(100_000_000, dtype=torch.uint8), CPU)
    assert growth is None if sys.platform != "linux" else 90_000_000 < growth < 200_000_000


def test_a_case_that_does_not_fit_is_a_result():
    config = TransformerConfig(vocab_size=1000, context_length=512, d_model=64, num_layers=2, num_heads=2)
    # Scores of 64 x 2 heads x 512² x 4 bytes: 134 MB each.
    plan = Plan(CPU, warmup=0, steps=1, threads=1, memory_limit=300_000_000)
    assert measure_in_fresh_process(Case("large", config, 64, "step"), plan) == {"error": OUT_OF_MEMORY}


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as failed:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failed.value)
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("not enough memory"))


def test_snapshots_are_written_against_the_present_interface(tmp_path):
    inspect.signature(torch.cuda.memory._record_memory_history).bind(max_entries=1_000_000)
    inspect.signature(torch.cuda.memory._record_memory_history).bind(enabled=None)
    inspect.signature(torch.cuda.memory._dump_snapshot).bind("file")
    with pytest.raises(UsageError, match="use --trace"):
        check_snapshot_device(CPU)
    if torch.cuda.is_available():
        with memory_snapshot(tmp_path / "snapshot.pickle"):
            torch.ones(1000, device="cuda")
        assert (tmp_path / "snapshot.pickle").stat().st_size > 0


# Commands


def run_benchmark(tmp_path: Path, *flags: str) -> dict[str, list[dict[str, str]]]:
    """Run the command in this process; its tables, read back from CSV."""
    shape = ["--sizes", "tiny", "mini", "--context_len", "8", "--vocab_size", "32", "--batch_size", "2"]
    benchmark.main([*shape, "--warmup", "0", "--steps", "2", "--device", "cpu", "--out", str(tmp_path), *flags])
    return {
        name: list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
        for name in ("timings", "memory")
    }


def test_the_command_makes_one_table_of_all_cases(tmp_path, capsys):
    tables = run_benchmark(tmp_path, "--in_process", "--dtype", "float32", "bfloat16", "--attention", "plain", "tiled")
    timings = tables["timings"]
    assert len(timings) == 2 * 2 * 2 * 3
    assert {(row["size"], row["dtype"], row["attention"], row["mode"]) for row in timings} == {
        (size, dtype, attention, mode)
        for size in ("tiny", "mini")
        for dtype in ("float32", "bfloat16")
        for attention in ("plain", "tiled")
        for mode in ("forward", "forward_backward", "step")
    }
    for row in timings:
        assert all(float(row[name]) > 0 for name in ("mean, ms", "median, ms", "tokens/s", "TFLOP/s"))
        phases = [float(row[name]) for name in ("forward, ms", "backward, ms", "optimizer, ms") if row[name]]
        assert sum(phases) == pytest.approx(float(row["mean, ms"]))
        assert float(row["tokens/s"]) == pytest.approx(16e3 / float(row["median, ms"]))
    assert len(tables["memory"]) == 2 * 2 * 2
    assert all(float(row["step, MB"]) > 0 for row in tables["memory"])
    out = capsys.readouterr().out
    assert "Peak memory" in out
    assert (tmp_path / "timings.tex").read_text().startswith(r"\begin{tabular}")


@pytest.fixture
def one_thread():
    """The stacks of many threads would count towards a limit of memory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_the_command_goes_on_past_a_case_that_does_not_fit(tmp_path, capsys):
    tables = run_benchmark(
        tmp_path, "--modes", "inference", "--sizes", "tiny", "--num_layers", "1", "--context_len", "8", "2048",
        "--batch_size", "32", "--memory_limit", "0.25",
    )  # fmt: skip
    fits, too_large = tables["timings"]
    assert float(fits["mean, ms"]) > 0
    assert (too_large["mean, ms"], too_large["median, ms"]) == (OUT_OF_MEMORY, "")
    assert tables["memory"][1]["inference, MB"] == OUT_OF_MEMORY
    assert tables["memory"][0]["size"] == "tiny*"
    assert OUT_OF_MEMORY in capsys.readouterr().out


def test_resuming_keeps_what_was_measured(tmp_path):
    first = run_benchmark(tmp_path, "--in_process", "--modes", "forward")
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    (tmp_path / "results.jsonl").write_text(lines[0] + "\n")
    second = run_benchmark(tmp_path, "--in_process", "--modes", "forward", "--resume")
    assert second["timings"][0] == first["timings"][0]
    assert second["timings"][1] != first["timings"][1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sizes", "huge"], "'huge' is unknown"),
        (["--steps", "0"], "steps is 0"),
        (["--batch_size", "-1"], "batch_size is -1"),
        (["--memory_limit", "0"], "memory_limit is 0"),
        (["--d_model", "30"], "not a multiple"),
        (["--memory_snapshot"], "memory snapshots record the CUDA allocator"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, flags, message):
    with pytest.raises(UsageError, match=message):
        benchmark.main([*flags, "--device", "cpu", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_compiled_model_is_timed(tmp_path):
    flags = ["--in_process", "--compile", "--modes", "inference", "--sizes", "tiny", "--num_layers", "1"]
    assert float(run_benchmark(tmp_path, *flags)["timings"][0]["forward, ms"]) > 0


def test_all_named_sizes_have_flags():
    text = " ".join(benchmark.build_parser().format_help().split())
    assert all(name in text for name in SIZES)


# Mixed precision


def test_sums_in_half_precision_lose_what_single_precision_keeps(tmp_path, capsys):
    mixed_precision.main(["--out", str(tmp_path), "--device", "cpu"])
    rows = list(csv.DictReader((tmp_path / "accumulation.csv").read_text().splitlines()))
    errors = {(row["values in"], row["sum in"]): float(row["relative error"]) for row in rows}
    assert errors["float32", "float32"] < 1e-4
    assert errors["float32", "float32"] < errors["float16", "float32"] < errors["float16", "float16"]
    assert errors["bfloat16", "float32"] < errors["bfloat16", "bfloat16"]
    # A bfloat16 has 8 significant bits: from 4 on its steps are 4 · 2^-7, and 0.01 is less than half of one.
    assert mixed_precision.accumulate(torch.bfloat16, torch.bfloat16, 1000) == 4.0
    # 0.01 in fp16 is 0.01000213623046875; a thousand of them in fp32 are that many.
    assert mixed_precision.accumulate(torch.float16, torch.float32, 1000) == pytest.approx(10.00213623, rel=1e-5)
    assert "autocast to bfloat16 on cpu" in capsys.readouterr().out


def test_types_under_autocast_are_those_of_the_model():
    dtypes = mixed_precision.autocast_dtypes(CPU, torch.bfloat16)
    assert dtypes["parameters"] == dtypes["gradients of the parameters"] == dtypes["loss (ours)"] == torch.float32
    assert dtypes["logits (matrix product)"] == dtypes["first linear layer (matrix product)"] == torch.bfloat16


def test_a_count_below_one_is_refused():
    with pytest.raises(UsageError, match="count is 0"):
        mixed_precision.main(["--count", "0"])


@pytest.mark.parametrize("script", ["benchmark", "mixed_precision", "gradient_checkpointing", "attention_study"])
def test_scripts_list_their_flags_and_refuse_unknown_devices(script, monkeypatch, capsys):
    path = str(Path(__file__).parents[1] / "scripts" / f"{script}.py")
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(path, run_name="__main__")
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    # Every flag but --help says what it is by default.
    flags = text.split("options:")[1]
    assert text.count("(default: ") == flags.count(" --") - flags.count(" --no-") - 1
    monkeypatch.setattr(sys, "argv", [path, "--device", "abacus"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(path, run_name="__main__")
    assert stopped.value.code == 2
    assert "device 'abacus' is unknown" in capsys.readouterr().err
