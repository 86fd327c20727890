"""The command that compares the ways of data parallelism."""

import pytest

from cs336_basics.command_line import UsageError
from cs336_systems.data_parallel.command import main


@pytest.mark.slow
def test_smoke_run_shows_every_way(tmp_path, capsys):
    main(["--smoke", "--out_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    rows = (tmp_path / "data_parallel.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["naive", "flat", "overlapped", "buckets of 1 MB", "FSDP"]
    for row in rows:
        name, total, waited, share = row.split(",")
        assert name in printed
        assert 0 < float(waited) < float(total)
        assert float(share) == pytest.approx(100 * float(waited) / float(total))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--processes", "0"], "processes is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--warmup", "-1"], "warmup is -1"),
        (["--bucket_size_mb", "5", "-2"], "-2.0"),
    ],
)
def test_bad_numbers_are_refused(flags, named):
    with pytest.raises(UsageError, match=named):
        main(flags)
