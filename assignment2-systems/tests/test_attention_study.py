"""The attention study: complete rows, counted memory, and rows that say what does not fit."""

import csv
import math

import pytest
import torch

from cs336_basics.command_line import UsageError
from cs336_systems.attention_study import (
    AttentionCase,
    Effort,
    implementation,
    main,
    measure_case,
    predicted_bytes,
    result_table,
)

CPU = torch.device("cpu")
QUICK = Effort(warmup=1, passes=2, max_seconds=math.inf)


def case_of(name: str, length: int = 64, **changes) -> AttentionCase:
    values = {"d_head": 16, "batch_size": 2, "dtype": "float32", "causal": True} | changes
    return AttentionCase(name, length=length, **values)


def read(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "attention.csv").read_text().splitlines()))


@pytest.mark.parametrize("name", ["plain", "flash"])
def test_a_measurement_is_complete(name):
    result = measure_case(case_of(name), CPU, QUICK, memory_limit=None)
    assert len(result["forward"]) == len(result["backward"]) == 2
    assert min(*result["forward"], *result["backward"]) > 0


def test_memory_before_backward_as_worked_by_hand():
    batch, length, d_head = 2, 64, 16
    flash = measure_case(case_of("flash"), CPU, QUICK, None)["saved_bytes"]
    # Queries, keys, values, output, its gradient, and one log-sum-exp per query.
    assert flash == 4 * (5 * batch * length * d_head + batch * length)
    plain = measure_case(case_of("plain"), CPU, QUICK, None)["saved_bytes"]
    # Plain attention keeps at least its weights and exponentials for each pair of query and key.
    assert plain > flash + 2 * 4 * batch * length**2


@pytest.mark.parametrize("name", ["plain", "flash"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [64, 256])
def test_the_prediction_is_no_less_than_what_is_saved(name, causal, length):
    case = case_of(name, length, causal=causal)
    assert measure_case(case, CPU, QUICK, None)["saved_bytes"] <= predicted_bytes(case)


def test_a_case_that_would_not_fit_is_not_run():
    case = case_of("plain", length=1_000_000)
    result = measure_case(case, CPU, QUICK, memory_limit=10**9)
    assert result == {"error": "out of memory (needs up to 5.9e+04 GB)"}
    # Without a limit the allocator itself refuses.
    assert measure_case(case, CPU, QUICK, memory_limit=None) == {"error": "out of memory"}


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    with pytest.raises(KeyError):
        measure_case(case_of("plain", dtype="int3"), CPU, QUICK, None)


def test_times_stand_beside_those_of_plain_attention():
    cases = [case_of("plain"), case_of("flash"), case_of("compiled")]
    done = {"forward": [2.0, 4.0, 3.0], "backward": [8.0], "saved_bytes": 5_000_000}
    half = {"forward": [1.5], "backward": [4.0], "saved_bytes": 1_000_000}
    rows = result_table([(cases[0], done), (cases[1], half), (cases[2], {"error": "out of memory"})]).rows
    assert rows[0] == [16, 64, "plain", 3000.0, 8000.0, 5.0, 1.0, 1.0]
    assert rows[1] == [16, 64, "flash", 1500.0, 4000.0, 1.0, 0.5, 0.5]
    assert rows[2] == [16, 64, "compiled", "out of memory", None, None, None, None]


def test_the_command_reports_every_case(tmp_path, capsys):
    flags = ["--implementations", "plain", "flash", "--d_head", "16", "32", "--length", "32", "1024", "--no-causal"]
    flags += ["--batch_size", "2", "--passes", "2", "--memory_limit", "0.05", "--device", "cpu", "--out", str(tmp_path)]
    main(flags)
    rows = read(tmp_path)
    assert len(rows) == 8
    for row in rows:
        if row["attention"] == "plain" and row["length"] == "1024":
            assert row["forward, ms"].startswith("out of memory (needs up to")
        else:
            assert min(float(row["forward, ms"]), float(row["backward, ms"])) > 0
    assert (tmp_path / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert "float32, full" in capsys.readouterr().out
    before = (tmp_path / "results.jsonl").read_text()
    main([*flags, "--resume"])
    assert (tmp_path / "results.jsonl").read_text() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--length", "0"], "length is 0"),
        (["--d_head", "16", "-2"], "d_head is -2"),
        (["--warmup", "-1"], "warmup is -1"),
        (["--max_seconds", "0"], "max_seconds is 0.0"),
        (["--memory_limit", "-3"], "memory_limit is -3.0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, flags, message):
    with pytest.raises(UsageError, match=message):
        main([*flags, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_compiled_attention_is_attention_and_saves_less():
    q, k, v = torch.randn(3, 2, 48, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(implementation("compiled")(q, k, v, True), expected)
    compiled = measure_case(case_of("compiled"), CPU, QUICK, None)
    assert 0 < compiled["saved_bytes"] < measure_case(case_of("plain"), CPU, QUICK, None)["saved_bytes"]
