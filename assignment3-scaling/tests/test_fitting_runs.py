"""Reading tables of runs, grouping them by budget, and what is refused."""

import csv
import json

import numpy as np
import pytest

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting.runs import Runs, column_names, read_runs, read_table, runs_from_rows

ROWS = [
    {"parameters": 1e6, "compute_budget": 6e14, "final_loss": 5.0},
    {"parameters": 2e6, "compute_budget": 6e14, "final_loss": 4.5},
    {"parameters": 4e6, "compute_budget": 6e15, "final_loss": 4.0},
]


def test_json_and_csv_give_the_same_runs(tmp_path):
    (tmp_path / "runs.json").write_text(json.dumps(ROWS))
    (tmp_path / "wrapped.json").write_text(json.dumps({"runs": ROWS}))
    with open(tmp_path / "runs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    for name in ("runs.json", "wrapped.json", "runs.csv"):
        runs = read_runs(tmp_path / name)
        assert runs.parameters.tolist() == [1e6, 2e6, 4e6]
        np.testing.assert_allclose(runs.tokens, [1e8, 5e7, 2.5e8])
        assert runs.loss.tolist() == [5.0, 4.5, 4.0]


@pytest.mark.parametrize("missing", ["parameters", "tokens", "flops"])
def test_the_third_of_three_columns_follows_from_six_n_d(missing):
    columns = {"parameters": [1e6, 3e6], "tokens": [2e7, 4e7], "flops": [1.2e14, 7.2e14]}
    runs = Runs.of([3.0, 2.0], **{name: values for name, values in columns.items() if name != missing})
    np.testing.assert_allclose(getattr(runs, missing), columns[missing])


def test_budgets_are_found_though_steps_are_whole():
    flops = np.array([1.00e15, 3.1e15, 1.02e15, 0.99e15, 3.0e15])
    runs = Runs.of(np.ones(5), parameters=np.arange(1, 6), flops=flops)
    assert runs.budget_of_each().tolist() == [0, 1, 0, 0, 1]
    assert [len(profile) for profile in runs.by_budget()] == [3, 2]
    assert [len(profile) for profile in runs.by_budget(tolerance=0.001)] == [1, 1, 1, 1, 1]


def test_named_columns_win_and_patterns_expand():
    rows = [{"size": 1e6, "seen": 1e8, "loss@a[x]": 3.0, "loss@b": 2.0, "loss": 9.0}]
    assert column_names(rows, "loss@*") == ["loss@a[x]", "loss@b"]
    assert column_names(rows, "loss@a[x]") == ["loss@a[x]"]
    runs = runs_from_rows(rows, parameters="size", tokens="seen", loss="loss@b")
    assert runs.loss.tolist() == [2.0]
    assert runs.flops.tolist() == [6e14]


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"parameters": 1, "flops": 2}], {}, "no loss column"),
        ([{"parameters": 1, "loss": 2}], {}, "at least two of parameters, tokens and flops"),
        ([{"parameters": 1, "flops": 2, "loss": 2}], {"tokens": "seen"}, "no column 'seen'"),
        ([{"parameters": 1, "flops": 2, "loss": -2}], {}, "run 1 has loss -2"),
        ([{"parameters": 1, "flops": 2, "loss": "nan"}], {}, "run 1 has loss nan"),
        ([{"parameters": 1, "flops": 2, "loss": 1}, {"parameters": 0, "flops": 2, "loss": 1}], {}, "run 2 has param"),
        ([{"parameters": 1, "flops": 2, "loss": "low"}], {}, "loss 'low'; a number is needed"),
        ([{"parameters": 1, "flops": 2, "loss": 1}, {"parameters": 1, "loss": 1}], {}, "run 2 has flops None"),
    ],
)
def test_bad_rows_are_named(rows, columns, message):
    with pytest.raises(UsageError, match=message):
        runs_from_rows(rows, **columns)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("runs.json", "{", "not a JSON file"),
        ("runs.json", "[]", "holds no runs"),
        ("runs.json", "[1]", "holds no runs"),
        ("runs.csv", "a,b\n", "holds no runs"),
        ("runs.txt", "", "allowed are json and csv"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_table(tmp_path / name)
