"""The fitting command: what it prints and writes, and how it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cs336_basics.command_line import UsageError
from cs336_scaling.fitting.chinchilla import PUBLISHED
from cs336_scaling.fitting.command import main
from cs336_scaling.fitting.example_runs import example_runs
from cs336_scaling.fitting.methods import DESCRIPTIONS

SCRIPT = Path(__file__).parents[1] / "scripts/fit.py"


def test_without_arguments_it_fits_the_example(tmp_path, capsys):
    main(["--out", str(tmp_path), "--bootstrap", "10"])
    printed = capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in DESCRIPTIONS.values():
        assert name in printed
        assert name in page
    assert printed.startswith((tmp_path / "fit.md").read_text(encoding="utf-8").rstrip())
    assert page.count("<img") == 4
    for plot in ("profiles", "optima", "loss", "residuals"):
        assert (tmp_path / f"example-{plot}.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "fit.json").read_text(encoding="utf-8"))
    found = next(row for row in rows if row["name"] == "chinchilla" and row["target_flops"] == 1e22)
    assert found["parameters"] == pytest.approx(PUBLISHED.optimal(1e22)[0], rel=0.1)
    assert found["loss_low"] < found["loss"] < found["loss_high"]


@pytest.mark.slow
def test_several_losses_and_groups(tmp_path, capsys):
    n, d = (values.ravel() for values in np.meshgrid(np.geomspace(1e6, 1e9, 4), np.geomspace(1e8, 1e10, 4)))
    lines = ["set,params,tokens,loss@a,loss@b"]
    for group, factor in (("one", 1.0), ("two", 1.2)):
        lines += [
            f"{group},{x},{y},{factor * PUBLISHED.loss(x, y)},{PUBLISHED.loss(x, y) + 1}"
            for x, y in zip(n, d, strict=True)
        ]
    (tmp_path / "runs.csv").write_text("\n".join(lines))
    arguments = [
        "--loss-column",
        "loss@*",
        "--group-column",
        "set",
        "--bootstrap",
        "0",
        "--methods",
        "chinchilla",
        "lowest",
    ]
    main([str(tmp_path / "runs.csv"), "--out", str(tmp_path / "out"), "--targets", "1e21", *arguments])
    assert "## Held-out errors" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out/fit.json").read_text(encoding="utf-8"))
    assert {row["table"] for row in rows} == {f"{group}, loss@{loss}" for group in ("one", "two") for loss in "ab"}
    by_table = {row["table"]: row["loss"] for row in rows if row["name"] == "chinchilla"}
    assert by_table["two, loss@a"] == pytest.approx(1.2 * by_table["one, loss@a"], rel=1e-3)
    assert by_table["one, loss@b"] == pytest.approx(PUBLISHED.optimal_loss(1e21) + 1, rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--confidence", "1.5"], "confidence is 1.5; allowed"),
        (["--bootstrap", "-1"], "bootstrap is -1"),
        (["--targets", "0"], "targets are"),
        (["--seed", "-1"], "seed and held-out are -1 and 1; allowed"),
        (["--held-out", "0"], "seed and held-out are 0 and 0; allowed"),
    ],
)
def test_bad_flags_are_refused(flags, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        main(["--out", str(tmp_path), *flags])


def test_a_bad_file_is_one_line_and_exit_code_two(tmp_path):
    runs = example_runs().by_budget()[0]
    rows = [{"n": n, "c": c, "loss": loss} for n, c, loss in zip(runs.parameters, runs.flops, runs.loss, strict=True)]
    (tmp_path / "runs.json").write_text(json.dumps(rows))
    command = [
        sys.executable,
        str(SCRIPT),
        str(tmp_path / "runs.json"),
        "--methods",
        "lowest",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "an optimum was found for 1 of 1 compute budgets; at least 2 are needed" in done.stderr
    assert not (tmp_path / "out").exists()
