"""The command that shows model parallelism beside a single process."""

import re

import pytest

from cs336_basics.command_line import UsageError
from cs336_systems.model_parallel_demonstration import build_parser, check, main


@pytest.mark.slow
def test_the_curves_agree_and_ranks_hold_their_share(capsys):
    main(["--pipeline", "2", "--tensor", "1", "--schedule", "gpipe", "--smoke", "--device", "cpu"])
    text = capsys.readouterr().out
    rows = re.findall(r"^\| +\d+ \| ([\d.]+) +\| ([\d.]+) +\| [+-]", text, re.MULTILINE)
    assert len(rows) == 3
    for alone, together in rows:
        assert float(together) == pytest.approx(float(alone), rel=1e-5)
    assert float(rows[-1][0]) < float(rows[0][0])
    shares = [float(share) for share in re.findall(r"([\d.]+)% *\|$", text, re.MULTILINE)]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(100, abs=0.11)
    assert "each stage idles 20.0% of a step" in text
    assert "F0 F1 F2 F3" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "0"], "data parallelism is 0; allowed is any whole number of at least 1"),
        (["--tensor", "3"], "3 tensor-parallel ranks do not divide num_heads 4"),
        (["--pipeline", "6"], "6 pipeline stages cannot divide 4 layers and the output head; allowed are 1 to 5"),
        (["--batch_size", "6"], "batch_size 6 is not a multiple of 4"),
        (["--steps", "0"], "steps is 0; allowed is any whole number of at least 1"),
        (["--context_len", "33", "--sequence_parallel"], "context_len 33 is not a multiple of the 2 tensor ranks"),
    ],
)
def test_bad_input_is_refused_before_processes_start(flags, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        check(build_parser().parse_args(flags))
