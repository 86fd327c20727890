"""Clusters against networkx and brute force; whole runs of MinHash deduplication over files."""

import gzip
import itertools
import json
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError
from cs336_data.dedup import input_files, matching
from cs336_data.dedup.components import Components
from cs336_data.dedup.matching import join_matches, match
from cs336_data.dedup.minhash import MinHasher
from cs336_data.dedup.minhash_documents import minhash_deduplication
from cs336_data.dedup.normalization import normalize_text
from cs336_data.dedup.signed_documents import SignedDocuments, sign_documents
from cs336_data.executors import make_executor

# Few words and short documents: identical, similar and chained ones abound.
TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=7).map(" ".join), max_size=14)


def smallest_members(count: int, edges) -> list[int]:
    graph = networkx.Graph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    smallest = list(range(count))
    for component in networkx.connected_components(graph):
        for member in component:
            smallest[member] = min(component)
    return smallest


def brute_force(texts: list[str], hasher: MinHasher, num_bands: int, threshold: float) -> list[int]:
    """Pairs whose signatures share a band, checked by sets of n-grams of words, joined by networkx."""
    words = [text.split() for text in texts]
    length = hasher.ngrams
    sets = [{tuple(w[i : i + length]) for i in range(max(1, len(w) - length + 1))} for w in words]
    bands = [np.split(hasher.text_signature(text), num_bands) for text in texts]
    edges = [
        (i, j)
        for i, j in itertools.combinations(range(len(texts)), 2)
        if any((a == b).all() for a, b in zip(bands[i], bands[j], strict=True))
        and len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold
    ]
    return smallest_members(len(texts), edges)


def variants(count: int, seed: int = 0) -> dict[str, str]:
    """Documents of 60 words: every third an original, then one with a word changed, then one with another changed."""
    rng = np.random.default_rng(seed)
    texts = {}
    for k in range(count):
        if k % 3 == 0:
            words = [f"w{i}" for i in rng.integers(0, 5000, 60)]
        words[int(rng.integers(5, 55))] = f"changed{k}"
        texts[f"{k:03d}.txt"] = " ".join(words)
    return texts


def write_files(folder: Path, contents: dict[str, str]) -> list[Path]:
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    return [folder / name for name in contents]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_components_equal_networkx(graph):
    count, edges = graph
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    at_once = Components(count)
    at_once.join(pairs)
    assert at_once.smallest().tolist() == smallest_members(count, edges)
    in_steps = Components(count)
    for pair in pairs:
        in_steps.join(pair[None])
        in_steps.smallest()
    assert in_steps.smallest().tolist() == smallest_members(count, edges)


def test_a_long_chain_is_one_component():
    order = np.random.default_rng(0).permutation(100_000)
    pairs = np.stack([order[:-1], order[1:]], axis=1)
    chain = Components(100_000)
    chain.join(pairs)
    assert not chain.smallest().any()


@given(
    texts=TEXTS,
    cut=st.integers(0, 14),
    partitions=st.integers(1, 4),
    bands=st.sampled_from([1, 4, 12]),
    threshold=st.sampled_from([0.2, 0.5, 2 / 3, 1.0]),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_clusters_equal_brute_force(tmp_path_factory, texts, cut, partitions, bands, threshold):
    folder, hasher = tmp_path_factory.mktemp("signed"), MinHasher(num_hashes=12, ngrams=2)
    batches = [folder / "a", folder / "b"]
    assert sign_documents(batches[0], texts[:cut], hasher, bands) == len(texts[:cut])
    sign_documents(batches[1], iter(texts[cut:]), hasher, bands)
    edges = [match(batches, threshold, k, partitions) for k in range(partitions)]
    assert join_matches(len(texts), edges).tolist() == brute_force(texts, hasher, bands, threshold)


def test_signed_documents_are_what_was_signed(tmp_path):
    hasher, texts = MinHasher(8, ngrams=2), ["one two three", "", "two three, four"]
    sign_documents(tmp_path / "x", texts, hasher, 4)
    signed = SignedDocuments(tmp_path / "x")
    assert len(signed) == 3
    assert (np.diff(signed.keys.astype(object)) >= 0).all()
    assert np.bincount(signed.rows).tolist() == [4, 4, 4]
    for row, text in enumerate(texts):
        shingles = signed.shingles[signed.offsets[row] : signed.offsets[row + 1]]
        assert shingles.tolist() == hasher.shingles(text).tolist()


def test_many_copies_of_a_page_are_no_work(tmp_path):
    """20,000 copies make 200 million pairs: they must not be compared one by one."""
    sign_documents(tmp_path / "x", ["the same short page of words"] * 20_000 + ["another"], MinHasher(20), 5)
    edges = match([tmp_path / "x"], 0.8)
    assert len(edges) == 19_999
    assert join_matches(20_001, [edges]).tolist() == [0] * 20_000 + [20_000]


def test_duplicates_of_duplicates_are_one_cluster(tmp_path):
    """a resembles b and b resembles c, but a does not resemble c; of the three one stays."""
    words = [f"w{i}" for i in range(30)]
    contents = {"c": " ".join(words[:20]), "a": " ".join(words[5:25]), "b": " ".join(words[10:30]), "d": "other words"}
    paths = write_files(tmp_path / "in", contents)
    # 13 common trigrams of 23, against 8 of 28: one hash per band finds all pairs of this similarity.
    result = minhash_deduplication(paths, 60, 60, 3, 0.5, tmp_path / "out")
    assert result == (4, {"b": "a", "c": "a"})
    assert names(tmp_path / "out") == {"a", "d"}
    assert minhash_deduplication(paths, 60, 60, 3, 0.6, tmp_path / "stricter").removed == {}


def test_threshold_is_reached_by_equality_of_true_similarity(tmp_path):
    """3 common words of 4: similarity 0.75, whatever the signatures estimate."""
    paths = write_files(tmp_path / "in", {"a": "x y z", "b": "x y z w"})
    assert minhash_deduplication(paths, 64, 64, 1, 0.75, tmp_path / "at").removed == {"b": "a"}
    assert minhash_deduplication(paths, 64, 64, 1, 0.7501, tmp_path / "above").removed == {}


def test_what_stays_is_verbatim(tmp_path):
    contents = {
        "a": "Tabs\tand\r\nline ends \udcff\udcfe and bad UTF-8",
        "b": "",
        "c": "...",
        "d": "A!",
        "e": "\ufeffother",
    }
    paths = write_files(tmp_path / "in", contents)
    result = minhash_deduplication(paths, 20, 10, 5, 0.8, tmp_path / "out")
    assert result.removed == {"c": "b"}  # neither has any word
    assert names(tmp_path / "out") == {"a", "b", "d", "e"}
    for name in names(tmp_path / "out"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()


def test_real_pages_equal_comparing_all_pairs(shared_data, tmp_path):
    """Pages of Common Crawl, several of them crawled twice: no pair of the threshold's similarity is missed."""
    with gzip.open(shared_data / "web" / "dolma_CC-MAIN-20190717_697docs.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in itertools.islice(file, 160)]
    words = [normalize_text(text).split() for text in texts]
    sets = [{tuple(w[i : i + 3]) for i in range(max(1, len(w) - 2))} for w in words]
    edges = [
        (i, j)
        for i, j in itertools.combinations(range(len(texts)), 2)
        if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= 0.8
    ]
    assert edges
    survivors = smallest_members(len(texts), edges)
    paths = write_files(tmp_path / "in", {f"{k:03d}": text for k, text in enumerate(texts)})
    result = minhash_deduplication(paths, 128, 32, 3, 0.8, tmp_path / "out")
    assert result.removed == {f"{k:03d}": f"{kept:03d}" for k, kept in enumerate(survivors) if kept != k}


def test_executors_order_and_partitions_change_nothing(tmp_path, monkeypatch):
    paths = write_files(tmp_path / "in", variants(60))
    expected = minhash_deduplication(paths, 40, 10, 3, 0.7, tmp_path / "plain")
    assert expected.removed == {f"{k:03d}.txt": f"{k - k % 3:03d}.txt" for k in range(60) if k % 3}
    monkeypatch.setattr(input_files, "_BATCH_FILES", 7)
    monkeypatch.setattr(matching, "_KEYS_PER_PARTITION", 100)
    with make_executor("local", workers=2) as processes:
        result = minhash_deduplication(paths[::-1], 40, 10, 3, 0.7, tmp_path / "processes", executor=processes)
    with ThreadPoolExecutor(4) as threads:
        again = minhash_deduplication(sorted(paths, key=hash), 40, 10, 3, 0.7, tmp_path / "threads", executor=threads)
    assert result == again == expected
    assert names(tmp_path / "processes") == names(tmp_path / "threads") == names(tmp_path / "plain")


class InterruptedExecutor(Executor):
    """Runs some tasks, then behaves as if the user had pressed Ctrl-C."""

    def __init__(self, limit: int) -> None:
        self.limit, self.count = limit, 0

    def submit(self, fn, /, *args, **kwargs):
        if self.count == self.limit:
            raise KeyboardInterrupt
        self.count += 1
        future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def test_interrupted_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(input_files, "_BATCH_FILES", 5)
    paths = write_files(tmp_path / "in", variants(20))
    arguments = (paths, 40, 10, 3, 0.7)
    whole = InterruptedExecutor(-1)
    expected = minhash_deduplication(*arguments, tmp_path / "whole", executor=whole)
    for limit in range(0, whole.count, 3):
        with pytest.raises(KeyboardInterrupt):
            minhash_deduplication(*arguments, tmp_path / "out", executor=InterruptedExecutor(limit))
        rest = InterruptedExecutor(-1)
        assert minhash_deduplication(*arguments, tmp_path / "out", executor=rest) == expected
        assert rest.count == whole.count - limit
        assert names(tmp_path / "out") == names(tmp_path / "whole")


def test_other_settings_in_the_same_folder_leave_no_old_files(tmp_path):
    paths = write_files(tmp_path / "in", variants(6))
    minhash_deduplication(paths, 40, 10, 3, 1.0, tmp_path / "out")
    assert len(names(tmp_path / "out")) == 6
    minhash_deduplication(paths, 40, 10, 3, 0.7, tmp_path / "out")
    assert names(tmp_path / "out") == {"000.txt", "003.txt"}


@pytest.mark.parametrize(
    ("num_hashes", "num_bands", "ngrams", "threshold", "message"),
    [
        (100, 30, 5, 0.8, "num_bands is 30: it must be at least 1 and divide num_hashes, 100"),
        (100, 0, 5, 0.8, "num_bands is 0"),
        (0, 1, 5, 0.8, "num_hashes is 0"),
        (100, 10, 0, 0.8, "ngrams is 0"),
        (100, 10, 5, 0.0, "jaccard_threshold is 0.0"),
        (100, 10, 5, 1.2, "jaccard_threshold is 1.2"),
        (100, 10, 5, float("nan"), "jaccard_threshold is nan"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path, num_hashes, num_bands, ngrams, threshold, message):
    paths = write_files(tmp_path / "in", {"a": "text"})
    with pytest.raises(UsageError, match=message):
        minhash_deduplication(paths, num_hashes, num_bands, ngrams, threshold, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_names_are_refused(tmp_path):
    paths = [write_files(tmp_path / folder, {"same": "text"})[0] for folder in ("x", "y")]
    for order in itertools.permutations(paths):
        with pytest.raises(UsageError, match="have the same name, 'same'"):
            minhash_deduplication(order, 10, 5, 5, 0.8, tmp_path / "out")
