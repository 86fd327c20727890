"""The course's data sets: where they are, how large they are, and getting them.

    from cs336_basics.datasets import select, get_dataset
    for dataset in select("tinystories"):
        get_dataset(dataset, "data")

The environment variable HF_ENDPOINT names a mirror of https://huggingface.co, as for Hugging Face's own tools.
"""

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tqdm import tqdm

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.default_text import TINYSTORIES_TRAIN, TINYSTORIES_VALID
from cs336_basics.download import CHUNK_BYTES, check_disk_space, download, file_sha256, part_path


@dataclass(frozen=True)
class Dataset:
    """One text file of the course."""

    name: str
    file_name: str  # as it lies in the data folder, unpacked
    num_bytes: int  # of that file
    sha256: str  # of that file
    repository: str  # of data sets on Hugging Face
    remote_name: str  # ends in .gz where the file has to be unpacked
    remote_bytes: int
    terms: str

    @property
    def url(self) -> str:
        """The address to download from."""
        endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        return f"{endpoint}/datasets/{self.repository}/resolve/main/{self.remote_name}"

    @property
    def packed(self) -> bool:
        """Whether the download is gzip-compressed."""
        return self.remote_name.endswith(".gz")


_TINYSTORIES = "roneneldan/TinyStories"
_OWT = "stanford-cs336/owt-sample"
DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="tinystories-train",
            file_name=TINYSTORIES_TRAIN,
            num_bytes=2_227_753_162,
            sha256="6418d412de72888f52b5142c761ac21a582f7d1166f0bfbdb5f03ccfdec90443",
            repository=_TINYSTORIES,
            remote_name=TINYSTORIES_TRAIN,
            remote_bytes=2_227_753_162,
            terms="CDLA-Sharing-1.0",
        ),
        Dataset(
            name="tinystories-valid",
            file_name=TINYSTORIES_VALID,
            num_bytes=22_502_601,
            sha256="6874bae9a4c1a4e7edcf0e53b86c17817e9cf881fc75ff2368da457b80c0585d",
            repository=_TINYSTORIES,
            remote_name=TINYSTORIES_VALID,
            remote_bytes=22_502_601,
            terms="CDLA-Sharing-1.0",
        ),
        Dataset(
            name="owt-train",
            file_name="owt_train.txt",
            num_bytes=11_920_511_059,
            sha256="bbeb7f291a981ecfd5cf44b84d0f654b9e96c53dff99f2556b7d2cccaf8c1918",
            repository=_OWT,
            remote_name="owt_train.txt.gz",
            remote_bytes=4_591_240_837,
            terms="web text, see the data set's page",
        ),
        Dataset(
            name="owt-valid",
            file_name="owt_valid.txt",
            num_bytes=289_998_753,
            sha256="2406f278e71829d273b315e9b403285baea7022b26a96d2728dd8b776ea40660",
            repository=_OWT,
            remote_name="owt_valid.txt.gz",
            remote_bytes=111_785_382,
            terms="web text, see the data set's page",
        ),
    )
}


def select(name: str) -> list[Dataset]:
    """The data sets called `name`: one of `DATASETS`, or a family (`tinystories`, `owt`), or `all`.

    Raises:
        UsageError: there is none of that name.
    """
    found = [dataset for key, dataset in DATASETS.items() if name in (key, key.rpartition("-")[0], "all")]
    if not found:
        raise UsageError(f"data set {name!r} is unknown; allowed are {', '.join(DATASETS)}, tinystories, owt and all")
    return found


def dataset_state(dataset: Dataset, folder: str | os.PathLike) -> str:
    """What `folder` holds of a data set: "present", "not there", "wrong size" or the downloaded share in percent."""
    path = Path(folder) / dataset.file_name
    if path.is_file():
        return "present" if path.stat().st_size == dataset.num_bytes else "wrong size"
    part = part_path(Path(folder) / dataset.remote_name)
    if part.is_file() and part.stat().st_size:
        return f"{100 * part.stat().st_size / dataset.remote_bytes:.0f} % downloaded"
    return "not there"


def get_dataset(dataset: Dataset, folder: str | os.PathLike, progress: bool = True, **transfer: float) -> Path:
    """Put a data set into `folder` unless it is there; resume what an earlier call has left.

    Args:
        dataset: one of `DATASETS`.
        folder: the data folder, made if it is missing.
        progress: show progress bars.
        transfer: `tries` and `first_pause_s` of `download`.

    Returns:
        The path of the (unpacked) text file, whose SHA-256 has been checked by this or an earlier call.

    Raises:
        UsageError: as `download`; or the file there already is not the right one; or the archive is damaged.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / dataset.file_name
    if path.is_file():
        if path.stat().st_size != dataset.num_bytes or file_sha256(path, progress) != dataset.sha256:
            raise UsageError(
                f"{path} is there but is not {dataset.name} ({path.stat().st_size} bytes instead of "
                f"{dataset.num_bytes}, or another checksum); move it away first"
            )
        return path
    archive = folder / dataset.remote_name
    part = part_path(archive)
    arrived = next((each.stat().st_size for each in (archive, part) if each.is_file()), 0)
    unpacked = dataset.num_bytes if dataset.packed else 0
    check_disk_space(folder, dataset.remote_bytes - arrived + unpacked, dataset.name)
    if not dataset.packed:
        download(dataset.url, path, sha256=dataset.sha256, progress=progress, **transfer)
        return path
    if not archive.is_file():
        download(dataset.url, archive, progress=progress, **transfer)
    unpack_gzip(archive, path, dataset.sha256, dataset.num_bytes, progress)
    archive.unlink()
    return path


def unpack_gzip(archive: Path, path: Path, sha256: str, num_bytes: int, progress: bool = True) -> None:
    """Unpack `archive` to `path`, which appears only if it has the right checksum; a wrong archive is removed.

    Raises:
        UsageError: the archive is damaged, cut short, or holds something else.
    """
    digest = hashlib.sha256()
    try:
        with gzip.open(archive) as packed, atomic_write(path) as file:
            _copy(packed, file, digest, num_bytes, progress, path.name)
            if digest.hexdigest() != sha256:
                raise zlib.error(f"its content has SHA-256 {digest.hexdigest()}, but {sha256} is right")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        archive.unlink()
        raise UsageError(f"{archive} is damaged and was removed ({error}); download it again") from None


def _copy(source: IO[bytes], target: IO[bytes], digest: "hashlib._Hash", total: int, progress: bool, name: str) -> None:
    with tqdm(desc=f"unpacking {name}", total=total, unit="B", unit_scale=True, disable=not progress) as bar:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            target.write(chunk)
            bar.update(len(chunk))
