"""The command that deduplicates files, as its users run it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from cs336_basics.command_line import run_command
from cs336_data.dedup.command import main
from cs336_data.dedup.sample_documents import write_documents

SCRIPT = Path(__file__).parents[1] / "scripts" / "deduplicate.py"


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """An empty folder to run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_without_arguments_it_does_the_whole_way(in_folder):
    done = subprocess.run([sys.executable, SCRIPT, "--smoke", "--quiet"], capture_output=True, text=True, check=True)
    sample, kept = (read_files(in_folder / "data" / name / "smoke") for name in ("dedup_sample", "deduplicated"))
    assert len(sample) == 200
    assert kept.items() < sample.items()
    # A fifth of the documents are made as copies, some with words changed.
    assert 25 <= len(sample) - len(kept) <= 55
    assert f"{len(sample) - len(kept)} of 200 documents removed" in done.stdout
    assert len(set(kept.values())) == len(kept)


@pytest.mark.parametrize("method", ["exact", "bloom"])
def test_lines(in_folder, capsys, method):
    write_documents("in", 50)
    main(["in", "--out", "out", "--method", method, "--quiet", "--false_positive_rate", "1e-9"])
    before, after = (read_files(in_folder / name) for name in ("in", "out"))
    counts = Counter(line for content in before.values() for line in content.splitlines())
    assert before.keys() == after.keys()
    for name in before:
        assert after[name].splitlines() == [line for line in before[name].splitlines() if counts[line] == 1]
    removed = sum(count for count in counts.values() if count > 1)
    assert f"{removed:,} of {counts.total():,} lines removed" in capsys.readouterr().out


def test_removed_documents_are_listed_with_what_stayed(in_folder, capsys):
    write_documents("in", 60)
    main(["in/*.txt", "--out", "out", "--removed", "removed.tsv", "--quiet"])
    pairs = [line.split("\t") for line in Path("removed.tsv").read_text().splitlines()]
    before, after = (read_files(in_folder / name).keys() for name in ("in", "out"))
    assert before - after == {removed for removed, _ in pairs}
    assert {kept for _, kept in pairs} <= after
    assert "found with probability 1.000" in capsys.readouterr().out


@pytest.mark.slow
def test_on_slurm(in_folder):
    """Whose jobs are processes of this machine here."""
    paths = write_documents("in", 30)
    main([*map(str, paths), "--out", "here", "--quiet"])
    main([*map(str, paths), "--out", "there", "--quiet", "--executor", "slurm", "--slurm_cluster", "local"])
    assert read_files(in_folder / "there") == read_files(in_folder / "here")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing*"], "no input file matches 'nothing*'"),
        (["in", "--out", "in"], "lies in the output folder in"),
        (["in", "--num_bands", "7"], "num_bands is 7: it must be at least 1 and divide num_hashes, 100"),
        (["in", "--method", "bloom", "--false_positive_rate", "2"], "false_positive_rate is 2.0"),
        (["in", "--jaccard_threshold", "0"], "jaccard_threshold is 0.0"),
        (["in", "--method", "exact", "--removed", "list.tsv"], "--removed lists documents"),
        (["in", "--workers", "0"], "--workers 0 is too few"),
    ],
)
def test_bad_input_is_one_sentence(in_folder, capsys, arguments, message):
    write_documents("in", 2)
    with pytest.raises(SystemExit, match="2"):
        run_command(main, [*arguments, "--quiet"])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
