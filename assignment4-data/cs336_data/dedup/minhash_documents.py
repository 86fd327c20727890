"""Near-duplicate removal over files, each of which is one document: MinHash + LSH, checked by true Jaccard similarity.

sign    a batch of files: shingles, signatures, LSH keys            (a task each)
match   a partition of the keys: pairs that are similar enough      (a task each)
join    clusters of these pairs                                     (8 bytes per document)
write   a batch of files: those that stay                           (a task each)
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_data.dedup.input_files import batches, check_inputs
from cs336_data.dedup.lsh import check_bands
from cs336_data.dedup.matching import join_matches, match, partition_count
from cs336_data.dedup.minhash import MinHasher
from cs336_data.dedup.repeated_lines import save_array
from cs336_data.dedup.signed_documents import sign_documents
from cs336_data.dedup.stages import Stages, stages_in, write_marker


class NearDuplicates(NamedTuple):
    """What a document deduplication came to: how many documents there were, and for each that was removed (by its
    file's name) the one of its cluster that stayed."""

    documents: int
    removed: dict[str, str]


def minhash_deduplication(
    input_files: Sequence[str | os.PathLike],
    num_hashes: int,
    num_bands: int,
    ngrams: int,
    jaccard_threshold: float,
    output_directory: str | os.PathLike,
    *,
    seed: int = 0,
    executor: Executor | None = None,
    progress: bool = False,
) -> NearDuplicates:
    """Write the input files, verbatim and under their own names, without those that nearly repeat another one.

    Documents that share a band of their signatures are compared; those whose word n-grams' Jaccard similarity, of
    the normalized texts (`normalize_text`), reaches the threshold are joined, and of every connected component the
    file stays whose name comes first. The result depends on the files and the arguments up to `seed` alone: not on
    the order of the files, the executor or its number of processes.

    Args:
        input_files: the documents, UTF-8; wrong bytes count as U+FFFD in comparisons.
        num_hashes: length of a signature.
        num_bands: bands of a signature; must divide `num_hashes`.
        ngrams: words of a shingle; a shorter document is compared as a whole.
        jaccard_threshold: the least similarity of duplicates, in (0, 1].
        output_directory: where to write; made if it is missing. Earlier copies of removed documents are deleted.
        seed: of the hash functions.
        executor: runs the work in parallel; None is this process alone.
        progress: whether to show progress bars.

    Raises:
        UsageError: a number is out of range, a file does not exist, two have the same name, or one lies in the output
            folder.
    """
    check_bands(num_hashes, num_bands)
    check_threshold(jaccard_threshold)
    hasher = MinHasher(num_hashes, ngrams, seed)
    files = check_inputs(input_files, output_directory)
    settings = {"method": "minhash", "hasher": [num_hashes, ngrams, seed], "bands": num_bands}
    settings["threshold"] = jaccard_threshold
    with stages_in(output_directory, files, settings, executor, progress) as stages:
        survivors = _cluster(stages, files, hasher, num_bands, jaccard_threshold)
        _write(stages, files, survivors, Path(output_directory).absolute())
    removed = np.flatnonzero(survivors != np.arange(len(files)))
    return NearDuplicates(len(files), {files[i].name: files[survivors[i]].name for i in removed})


def check_threshold(jaccard_threshold: float) -> None:
    """See that a similarity threshold makes sense.

    Raises:
        UsageError: it does not lie in (0, 1].
    """
    if not 0 < jaccard_threshold <= 1:
        raise UsageError(f"jaccard_threshold is {jaccard_threshold}: it must be greater than 0 and at most 1")


def _cluster(stages: Stages, files: Sequence[Path], hasher: MinHasher, num_bands: int, threshold: float) -> np.ndarray:
    """For every file the first one, in the order of their names, of its cluster."""
    signing, signed = {}, []
    for number, batch in enumerate(batches(files)):
        signed.append(stages.folder / f"signed-{number}")
        marker = stages.folder / f"signed-{number}.json"
        signing[marker] = partial(_sign_batch, batch, signed[-1], hasher, num_bands, marker)
    stages.run("signing documents", signing)

    partitions, matching = partition_count(signed), {}
    for number in range(partitions):
        output = stages.folder / f"edges-{number}.npy"
        matching[output] = partial(_match_partition, signed, threshold, number, partitions, output)
    return join_matches(len(files), map(np.load, stages.run("matching documents", matching)))


def _sign_batch(files: Sequence[Path], output: Path, hasher: MinHasher, num_bands: int, marker: Path) -> None:
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in files)
    write_marker(marker, documents=sign_documents(output, texts, hasher, num_bands))


def _match_partition(signed: Sequence[Path], threshold: float, partition: int, partitions: int, output: Path) -> None:
    save_array(output, match(signed, threshold, partition, partitions))


def _write(stages: Stages, files: Sequence[Path], survivors: np.ndarray, output: Path) -> None:
    stays = dict(zip(files, survivors == np.arange(len(files)), strict=True))
    tasks = {}
    for number, batch in enumerate(batches(files)):
        marker = stages.folder / f"written-{number}.json"
        tasks[marker] = partial(_write_batch, {path: bool(stays[path]) for path in batch}, output, marker)
    stages.run("writing documents", tasks)


def _write_batch(stays: Mapping[Path, bool], output: Path, marker: Path) -> None:
    for path, is_kept in stays.items():
        target = output / path.name
        if is_kept:
            with atomic_write(target, flush_to_disk=False) as file:
                file.write(path.read_bytes())
        else:
            target.unlink(missing_ok=True)
    write_marker(marker, documents=len(stays))
