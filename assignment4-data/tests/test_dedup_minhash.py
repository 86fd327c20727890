"""Normalization, shingles, signatures and LSH against their definitions, and against probability theory."""

import itertools
import pickle
import string
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.dedup.lsh import band_keys, candidate_probability
from cs336_data.dedup.minhash import MinHasher, estimated_jaccard, jaccard
from cs336_data.dedup.normalization import normalize_text

# Characters that this Python's Unicode tables do not know yet may be known to the `regex` library's.
TEXTS = st.text(st.characters(exclude_categories=["Cn"]) | st.sampled_from("aB .,\n\u00a0é\u0301İΣß'’—"))
EXPECTED_SIGNATURE = [422725070, 478768112, 685488743, 348442999]
WORDS = st.lists(st.sampled_from("abc"), max_size=12)


def plainly_normalized(text: str) -> str:
    """The definition, step by step."""
    text = unicodedata.normalize("NFD", text).lower()
    stripped = set(string.punctuation)
    kept = [
        c for c in text if unicodedata.category(c)[0] != "P" and unicodedata.category(c) != "Mn" and c not in stripped
    ]
    return " ".join("".join(kept).split())


def ngram_set(text: str, n: int) -> set[tuple[str, ...]]:
    words = plainly_normalized(text).split()
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def set_jaccard(a: set, b: set) -> float:
    return len(a & b) / len(a | b)


def sets_of_similarity(rng: np.random.Generator, common: int, different: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of hashes with `common` members in common and `different` of their own each."""
    values = rng.integers(0, 2**64, common + 2 * different, np.uint64)
    return values[: common + different], np.delete(values, slice(common, common + different))


@given(TEXTS)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_normalization_equals_its_definition(text):
    assert normalize_text(text) == plainly_normalized(text)


def test_normalization_of_every_character():
    characters = [chr(c) for c in range(0x3100) if unicodedata.category(chr(c)) != "Cn"]
    for character in characters:
        assert normalize_text(f"x{character}Y") == plainly_normalized(f"x{character}Y"), hex(ord(character))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Don't\tSTOP —  it’s “Café”! \n", "dont stop its cafe"),
        ("ÅNGSTRÖM Ångström A\u030angstro\u0308m", "angstrom angstrom angstrom"),
        ("x^2 + y_1 = $5 <b>", "x2 y1 5 b"),
        ("lone \ud800 surrogate", "lone \ud800 surrogate"),
        ("한국어 Текст", unicodedata.normalize("NFD", "한국어") + " текст"),
        (" .,! \u2003", ""),
    ],
)
def test_normalization_examples(text, expected):
    assert normalize_text(text) == expected


@given(WORDS, WORDS, st.integers(1, 4))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_shingles_are_the_set_of_ngrams(a, b, ngrams):
    a, b = " ".join(a), " ".join(b)
    hasher = MinHasher(4, ngrams)
    of_a, of_b = hasher.shingles(a), hasher.shingles(b)
    assert len(of_a) == len(ngram_set(a, ngrams))
    assert (np.diff(of_a.astype(object)) > 0).all()
    assert jaccard(of_a, of_b) == set_jaccard(ngram_set(a, ngrams), ngram_set(b, ngrams))


def test_short_documents_compare_as_a_whole():
    hasher = MinHasher(8, ngrams=5)
    assert jaccard(hasher.shingles("One, two"), hasher.shingles("one TWO!")) == 1
    assert jaccard(hasher.shingles("one two"), hasher.shingles("one two three")) == 0
    assert jaccard(hasher.shingles(""), hasher.shingles("...")) == 1
    assert jaccard(hasher.shingles(""), hasher.shingles("one")) == 0


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.lists(st.integers(0, 2**64 - 1), min_size=1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_signature_of_a_union_is_the_minimum(a, b):
    hasher = MinHasher(16)
    a, b = np.array(a, np.uint64), np.array(b, np.uint64)
    union = hasher.signature(np.concatenate([a, b]))
    assert (union == np.minimum(hasher.signature(a), hasher.signature(b))).all()
    assert (hasher.signature(np.repeat(a[::-1], 2)) == hasher.signature(a)).all()


def test_signatures_are_the_same_on_every_machine():
    """Files of signatures from several machines are put together: their values are a format."""
    hasher = MinHasher(num_hashes=4, ngrams=2, seed=0)
    text = "To be, or not to be: that is the question — Être ou ne pas être"
    assert hasher.text_signature(text).tolist() == EXPECTED_SIGNATURE
    assert (hasher.text_signature(text) == hasher.signature(hasher.shingles(text))).all()
    assert (pickle.loads(pickle.dumps(hasher)).text_signature(text) == EXPECTED_SIGNATURE).all()
    assert (MinHasher(4, 2, seed=1).text_signature(text) != EXPECTED_SIGNATURE).all()


@pytest.mark.parametrize(("common", "different"), [(10, 45), (100, 50), (150, 25), (950, 25), (4, 1)])
def test_estimate_is_unbiased_and_as_exact_as_theory_says(common, different):
    rng = np.random.default_rng(common)
    similarity, num_hashes, trials = common / (common + 2 * different), 128, 400
    errors = []
    for seed in range(trials):
        a, b = sets_of_similarity(rng, common, different)
        hasher = MinHasher(num_hashes, seed=seed)
        errors.append(estimated_jaccard(hasher.signature(a), hasher.signature(b)) - similarity)
    deviation = np.sqrt(similarity * (1 - similarity) / num_hashes)
    assert abs(np.mean(errors)) < 4 * deviation / np.sqrt(trials)
    assert np.std(errors) == pytest.approx(deviation, rel=0.2)


def candidate_pairs(signatures: np.ndarray, num_bands: int) -> list[list[int]]:
    keys = band_keys(signatures, num_bands)
    return [[i, j] for i, j in itertools.combinations(range(len(keys)), 2) if (keys[i] == keys[j]).any()]


SIGNATURES = st.integers(0, 12).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), min_size=n, max_size=n)
)


@given(SIGNATURES, st.sampled_from([1, 2, 3, 6]))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_candidates_are_all_pairs_that_share_a_band(rows, num_bands):
    signatures = np.array(rows, np.uint32).reshape(len(rows), 6)
    bands = [np.split(signature, num_bands) for signature in signatures]
    expected = [
        [i, j]
        for i, j in itertools.combinations(range(len(rows)), 2)
        if any((a == b).all() for a, b in zip(bands[i], bands[j], strict=True))
    ]
    assert candidate_pairs(signatures, num_bands) == expected


def test_equal_rows_in_different_bands_do_not_count():
    assert len(set(band_keys(np.zeros((1, 6), np.uint32), 3)[0].tolist())) == 3


@pytest.mark.parametrize(("common", "different"), [(20, 40), (40, 20), (60, 15)])
def test_share_of_candidates_follows_the_curve(common, different):
    rng = np.random.default_rng(different)
    num_hashes, num_bands, trials = 24, 6, 1500
    hits = 0
    for seed in range(trials):
        hasher = MinHasher(num_hashes, seed=seed)
        pair = [hasher.signature(shingles) for shingles in sets_of_similarity(rng, common, different)]
        hits += len(candidate_pairs(np.stack(pair), num_bands))
    expected = candidate_probability(common / (common + 2 * different), num_hashes, num_bands)
    assert expected == pytest.approx(1 - (1 - (common / (common + 2 * different)) ** 4) ** 6)
    assert hits / trials == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / trials))


def test_numbers_out_of_range_are_refused():
    for options in ({"num_hashes": 0}, {"ngrams": 0}):
        with pytest.raises(UsageError, match="is 0: at least 1 is needed"):
            MinHasher(**options)
    with pytest.raises(UsageError, match="seed is -1: it must be at least 0"):
        MinHasher(seed=-1)
    for num_bands in (0, 3, -1, 20):
        with pytest.raises(UsageError, match=f"num_bands is {num_bands}: .* divide num_hashes, 10"):
            band_keys(np.zeros((2, 10), np.uint32), num_bands)
