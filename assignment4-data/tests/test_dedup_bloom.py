"""The Bloom filter against a set, its rate of errors against theory, and line deduplication by it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.dedup.bloom_filter import BloomFilter
from cs336_data.dedup.bloom_lines import bloom_line_deduplication
from cs336_data.dedup.exact_lines import exact_line_deduplication
from cs336_data.dedup.line_hashes import line_hashes


def numbered(start: int, stop: int) -> np.ndarray:
    return line_hashes("".join(f"line {i}\n" for i in range(start, stop)))


def write_corpus(folder: Path, repeated: int, unique: int) -> list[Path]:
    """Two files that share `repeated` lines and have `unique` lines of their own each."""
    folder.mkdir()
    common = [f"repeated {i}\n" for i in range(repeated)]
    for name in ("a", "b"):
        (folder / name).write_text("".join(common + [f"unique {name}{i}\n" for i in range(unique)]))
    return [folder / "a", folder / "b"]


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@given(st.lists(st.integers(0, 50), max_size=60))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_nothing_that_was_added_is_missed(items):
    bloom, seen = BloomFilter.sized(1000, 1e-9), set()
    # At this rate, 51 different items in a filter for 1,000 are never taken for one another: it behaves as a set.
    expected = [item in seen or seen.add(item) is not None for item in items]
    assert bloom.add(line_hashes("".join(f"{item}\n" for item in items))).tolist() == expected
    everything = line_hashes("".join(f"{item}\n" for item in range(51)))
    assert bloom.contains(everything).tolist() == [item in seen for item in range(51)]


@pytest.mark.parametrize("rate", [0.2, 0.05, 0.01, 0.001])
def test_rate_of_false_positives_is_the_one_asked_for(rate):
    bloom = BloomFilter.sized(20_000, rate)
    bloom.add(numbered(0, 20_000))
    strangers = bloom.contains(numbered(100_000, 200_000)).mean()
    # Rounding the number of probes to a whole one costs up to 10 % of the rate; the rest is four standard deviations.
    assert 0.9 * rate - 4 * np.sqrt(rate / 1e5) < strangers < 1.1 * rate + 4 * np.sqrt(rate / 1e5)
    assert bloom.contains(numbered(0, 20_000)).all()


def test_size_follows_the_formula():
    bloom = BloomFilter.sized(1_000_000, 0.01)
    assert bloom.bits.nbytes * 8 == pytest.approx(9_585_059, abs=8)  # n · ln(100) / (ln 2)²
    assert bloom.probes == 7


def test_a_saved_filter_answers_the_same(tmp_path):
    bloom = BloomFilter.sized(500, 0.1)
    bloom.add(numbered(0, 500))
    bloom.save(tmp_path / "filter.npy")
    loaded = BloomFilter.load(tmp_path / "filter.npy", bloom.probes)
    assert loaded.contains(numbered(0, 2000)).tolist() == bloom.contains(numbered(0, 2000)).tolist()


def test_with_few_errors_it_equals_the_exact_way(tmp_path):
    paths = write_corpus(tmp_path / "in", repeated=200, unique=300)
    exact = exact_line_deduplication(paths, tmp_path / "exact")
    assert bloom_line_deduplication(paths, tmp_path / "bloom", false_positive_rate=1e-9) == exact
    assert read_files(tmp_path / "bloom") == read_files(tmp_path / "exact")


def test_all_repeated_lines_go_and_few_others(tmp_path):
    paths = write_corpus(tmp_path / "in", repeated=4000, unique=4000)
    rate = 0.2
    counts = bloom_line_deduplication(paths, tmp_path / "out", expected_lines=12_000, false_positive_rate=rate)
    kept = b"".join(read_files(tmp_path / "out").values())
    assert b"repeated" not in kept
    lost = 8000 - kept.count(b"unique")
    assert 0 < lost <= rate * 8000
    assert counts.removed == 8000 + lost
    bloom_line_deduplication(paths[::-1], tmp_path / "again", expected_lines=12_000, false_positive_rate=rate)
    assert read_files(tmp_path / "again") == read_files(tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expected_lines": 0}, "expected_lines is 0"),
        ({"false_positive_rate": 0.0}, "must lie between 0 and 1"),
        ({"false_positive_rate": 1.0}, "must lie between 0 and 1"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, options, message):
    paths = write_corpus(tmp_path / "in", 1, 1)
    with pytest.raises(UsageError, match=message):
        bloom_line_deduplication(paths, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
