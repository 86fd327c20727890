"""The benchmark of the fused pieces runs, and its sides agree."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "fused.py"


def run(*arguments):
    return subprocess.run([sys.executable, BENCHMARK, *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_it_reports_every_piece_and_side(tmp_path):
    done = run("--smoke", "--device", "cpu", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = [line.split(",")[:2] for line in (tmp_path / "fused.csv").read_text().splitlines()[1:]]
    pieces, sides = ["head + loss", "AdamW step", "RMSNorm"], ["fused", "plain", "torch"]
    assert rows == [[piece, side] for piece in pieces for side in sides]


@pytest.mark.slow
def test_a_size_below_one_is_refused(tmp_path):
    done = run("--tokens", "0", "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "error: tokens is 0; allowed is any whole number above 0\n"
