"""Getting the classifiers that others have trained, and files of Common Crawl. Nothing of the project needs them.

    get_model(MODELS["lid.176.bin"], "data/models")
    get_crawl_files("CC-MAIN-2024-22", "wet", [0, 1], "data/crawl")

Transfers resume, are retried, and get their name only when complete (`cs336_basics.download`). Where a checksum is
known it is compared; Common Crawl publishes none for its files, so there `verify` reads every record instead.
"""

import gzip
import os
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cs336_basics.command_line import UsageError
from cs336_basics.download import check_disk_space, download, file_sha256, part_path
from cs336_data.web_archive.records import ReadCounts, read_records

COMMON_CRAWL_URL = "https://data.commoncrawl.org"
"""https://commoncrawl.org/get-started: files by HTTPS, without an account."""
KINDS = ("warc", "wet", "wat")
_CRAWL = re.compile(r"CC-MAIN-\d{4}(?:-\d{2,4})?")
_HUGGING_FACE = "https://huggingface.co"
_FASTTEXT = "https://dl.fbaipublicfiles.com/fasttext/supervised-models"


@dataclass(frozen=True)
class Model:
    """A fastText classifier.

    Attributes:
        file_name: what it is called in the models folder.
        url: where it is; for Hugging Face the environment variable HF_ENDPOINT names a mirror.
        num_bytes: its size.
        sha256: its checksum; None where only the server says it (Hugging Face does, with every download).
        purpose: what it tells apart.
        terms: its licence.
    """

    file_name: str
    url: str
    num_bytes: int
    sha256: str | None
    purpose: str
    terms: str


MODELS = {
    model.file_name: model
    for model in (
        # https://fasttext.cc/docs/en/language-identification.html
        Model(
            "lid.176.bin",
            f"{_FASTTEXT}/lid.176.bin",
            131_266_198,
            "7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e",
            "176 languages",
            "CC BY-SA 3.0",
        ),
        Model(
            "lid.176.ftz",
            f"{_FASTTEXT}/lid.176.ftz",
            938_013,
            "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
            "176 languages, compressed",
            "CC BY-SA 3.0",
        ),
        # Soldaini et al. 2024, "Dolma" (arXiv:2402.00159): trained on the Jigsaw Toxic Comments
        Model(
            "jigsaw_fasttext_bigrams_nsfw_final.bin",
            f"{_HUGGING_FACE}/allenai/dolma-jigsaw-fasttext-bigrams-nsfw/resolve/main/model.bin",
            991_753_734,
            None,
            "NSFW or not",
            "see the model's page",
        ),
        Model(
            "jigsaw_fasttext_bigrams_hatespeech_final.bin",
            f"{_HUGGING_FACE}/allenai/dolma-jigsaw-fasttext-bigrams-hatespeech/resolve/main/model.bin",
            992_245_824,
            None,
            "toxic or not",
            "see the model's page",
        ),
    )
}


def select_models(names: Iterable[str]) -> list[Model]:
    """The models of these file names; "all" is every one.

    Raises:
        UsageError: there is none of a name.
    """
    names = list(names)
    for name in names:
        if name != "all" and name not in MODELS:
            raise UsageError(f"model {name!r} is unknown; allowed are {', '.join(MODELS)} and all")
    return [model for name, model in MODELS.items() if name in names or "all" in names]


def get_model(model: Model, folder: str | os.PathLike, *, progress: bool = True, **transfer: float) -> Path:
    """Put a model into `folder` unless it is there; resume what an earlier call has left.

    Args:
        model: one of `MODELS`.
        folder: made if it is missing.
        progress: show progress bars.
        transfer: `tries` and `first_pause_s` of `cs336_basics.download.download`.

    Raises:
        UsageError: as `download`; or a file of that name is there and is another one.
    """
    path = Path(folder) / model.file_name
    if path.is_file():
        wrong_sum = model.sha256 is not None and file_sha256(path, progress) != model.sha256
        if wrong_sum or path.stat().st_size != model.num_bytes:
            raise UsageError(f"{path} is there but is not {model.url} (another size or checksum); move it away first")
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    check_disk_space(path.parent, model.num_bytes - arrived_bytes(path), model.file_name)
    endpoint = (os.environ.get("HF_ENDPOINT") or _HUGGING_FACE).rstrip("/")
    url = model.url.replace(_HUGGING_FACE, endpoint) if model.url.startswith(_HUGGING_FACE) else model.url
    download(url, path, sha256=model.sha256, progress=progress, **transfer)
    return path


def arrived_bytes(path: Path) -> int:
    """How much of an unfinished download of `path` is there."""
    part = part_path(path)
    return part.stat().st_size if part.is_file() else 0


def list_crawl_files(
    crawl: str, kind: str, folder: str | os.PathLike, *, base_url: str = COMMON_CRAWL_URL, **transfer: float
) -> list[str]:
    """The paths of all files of a kind in a crawl, in Common Crawl's order; the list is kept in `folder`.

    Args:
        crawl: such as CC-MAIN-2024-22 (https://commoncrawl.org/overview lists them).
        kind: "warc" (pages as they came, about 1 GB each), "wet" (their text, about 0.1 GB) or "wat" (metadata).
        folder: made if it is missing.
        base_url: the server.
        transfer: `tries` and `first_pause_s` of `cs336_basics.download.download`.

    Raises:
        UsageError: the crawl's name or the kind cannot be, or as `download`.
    """
    if not _CRAWL.fullmatch(crawl):
        raise UsageError(f"crawl {crawl!r} is no name of a crawl; they look like CC-MAIN-2024-22")
    if kind not in KINDS:
        raise UsageError(f"kind {kind!r} is unknown; allowed are {', '.join(KINDS)}")
    listing = Path(folder) / crawl / f"{kind}.paths.gz"
    if not listing.is_file():
        download(f"{base_url}/crawl-data/{crawl}/{kind}.paths.gz", listing, progress=False, **transfer)
    try:
        return gzip.decompress(listing.read_bytes()).decode("utf-8").split()
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        listing.unlink()
        raise UsageError(f"{listing} is damaged and was removed ({error}); download it again") from None


def get_crawl_files(
    crawl: str,
    kind: str,
    indices: Sequence[int],
    folder: str | os.PathLike,
    *,
    base_url: str = COMMON_CRAWL_URL,
    verify: bool = False,
    progress: bool = True,
    **transfer: float,
) -> list[Path]:
    """Put files of a crawl into `folder`/`crawl`, chosen by their place in its list, unless they are there.

    Args:
        crawl, kind, base_url, transfer: as for `list_crawl_files`.
        indices: places in the list, from 0.
        folder: made if it is missing.
        verify: read every record of each file afterwards.
        progress: show progress bars.

    Raises:
        UsageError: an index is out of range; a file turns out damaged (it is then removed); or as `download`.
    """
    paths = list_crawl_files(crawl, kind, folder, base_url=base_url, **transfer)
    for index in indices:
        if not 0 <= index < len(paths):
            raise UsageError(f"index {index} is out of range; {crawl} has {kind} files 0 to {len(paths) - 1}")
    files = []
    for index in indices:
        path = Path(folder) / crawl / paths[index].rpartition("/")[2]
        if not path.is_file():
            download(f"{base_url}/{paths[index]}", path, progress=progress, **transfer)
        if verify:
            verify_archive(path)
        files.append(path)
    return files


def verify_archive(path: Path) -> ReadCounts:
    """Read every record of a downloaded archive.

    Raises:
        UsageError: some are damaged; the file is then removed, so that the same command fetches it again.
    """
    counts = ReadCounts()
    for _ in read_records(path, counts=counts):
        pass
    if counts.bad or not counts.good:
        path.unlink()
        reasons = "; ".join(f"{number}: {reason}" for reason, number in counts.bad.items()) or "no records"
        raise UsageError(f"{path} is damaged and was removed ({reasons}); download it again")
    return counts


def parse_indices(text: str) -> list[int]:
    """The numbers in a text such as "0,3,10-19", in order and each once.

    Raises:
        UsageError: the text is no such list.
    """
    numbers: dict[int, None] = {}
    for part in text.split(","):
        if not (match := re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)):
            raise UsageError(f"{text!r} is no list of indices; they look like 0,3,10-19")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise UsageError(f"range {part.strip()!r} runs backwards; the smaller index comes first")
        numbers.update(dict.fromkeys(range(first, last + 1)))
    return list(numbers)
