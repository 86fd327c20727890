"""Getting the benchmarks and Anthropic's preference data. Nothing of the project needs them.

    get_file(FILES["gsm8k_test"], "data")

Transfers resume, are retried, and get their name only when complete (`cs336_basics.download`). A file whose checksum is
known is compared with it; every benchmark is read, and its examples are counted.
"""

import os
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cs336_alignment.evaluation.tasks import find_task
from cs336_basics.command_line import UsageError
from cs336_basics.download import download, file_sha256, part_path

_HUGGING_FACE = "https://huggingface.co"
_GSM8K = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
_HH = "https://raw.githubusercontent.com/anthropics/hh-rlhf/master"
_HH_PARTS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")
_KNOWN_HH = {"hh_harmless-base_test": "ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03"}
_SPLITS = ("dev", "val", "test")


@dataclass(frozen=True)
class RemoteFile:
    """A file to get.

    Attributes:
        name: as the command takes it.
        path: in the data folder; of MMLU the folder that its archive is unpacked to.
        url: where it is; for Hugging Face the environment variable HF_ENDPOINT names a mirror.
        terms: its licence.
        sha256: its checksum; None where it is not known.
        task: the benchmark that reads it; empty for preference data.
        examples: how many the benchmark has.
    """

    name: str
    path: str
    url: str
    terms: str
    sha256: str | None = None
    task: str = ""
    examples: int = 0

    @property
    def group(self) -> str:
        """What several files go by together."""
        return self.name.partition("_")[0]


FILES = {
    file.name: file
    for file in (
        RemoteFile(
            "gsm8k_test", "gsm8k_test.jsonl", f"{_GSM8K}/test.jsonl", "MIT",
            "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14", "gsm8k", 1319,
        ),
        RemoteFile(
            "gsm8k_train", "gsm8k_train.jsonl", f"{_GSM8K}/train.jsonl", "MIT",
            "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465", "gsm8k", 7473,
        ),
        RemoteFile(
            "math500", "math500_test.jsonl",
            f"{_HUGGING_FACE}/datasets/HuggingFaceH4/MATH-500/resolve/main/test.jsonl", "MIT", None, "math", 500,
        ),
        RemoteFile(
            "mmlu", "mmlu", "https://people.eecs.berkeley.edu/~hendrycks/data.tar", "MIT", None, "mmlu", 14_042
        ),
        RemoteFile(
            "alpaca_eval", "alpaca_eval.json",
            f"{_HUGGING_FACE}/datasets/tatsu-lab/alpaca_eval/resolve/main/alpaca_eval.json", "CC BY-NC 4.0", None,
            "alpaca_eval", 805,
        ),
        RemoteFile(
            "simple_safety_tests", "simple_safety_tests.csv",
            "https://raw.githubusercontent.com/stanford-cs336/assignment5-alignment/main/data/simple_safety_tests/"
            "simple_safety_tests.csv", "CC BY 4.0",
            "6d95a1301e0d0f3a3c4cf5392f4afff11ad6e3066f95d23aaa138d44aedf986c", "simple_safety_tests", 100,
        ),
        *(
            RemoteFile(
                name, f"hh/{part}_{split}.jsonl.gz", f"{_HH}/{part}/{split}.jsonl.gz", "MIT", _KNOWN_HH.get(name)
            )
            for part in _HH_PARTS
            for split in ("train", "test")
            for name in [f"hh_{part}_{split}"]
        ),
    )
}  # fmt: skip


def select_files(names: Iterable[str]) -> list[RemoteFile]:
    """The files of these names; "gsm8k" and "hh" are all of a set, "all" is every one.

    Raises:
        UsageError: there is none of a name.
    """
    names = list(names)
    known = {"all", *FILES, *(file.group for file in FILES.values() if file.group in ("gsm8k", "hh"))}
    for name in names:
        if name not in known:
            raise UsageError(f"data {name!r} is unknown; allowed are all, gsm8k, hh, {', '.join(FILES)}")
    return [file for file in FILES.values() if {"all", file.name, file.group} & set(names)]


def get_file(file: RemoteFile, folder: str | os.PathLike, *, progress: bool = True, **transfer: float) -> Path:
    """Put a file into `folder` unless it is there; resume what an earlier call has left.

    Args:
        file: one of `FILES`.
        folder: made if it is missing.
        progress: show progress bars.
        transfer: `tries` and `first_pause_s` of `cs336_basics.download.download`.

    Returns:
        Where it is; of MMLU the folder.

    Raises:
        UsageError: as `download`; what came is not the benchmark; or a file of that name is there and is another one.
    """
    path = Path(folder) / file.path
    if path.exists():
        if file.sha256 is not None and file_sha256(path, progress) != file.sha256:
            raise UsageError(f"{path} is there but is not {file.url} (another checksum); move it away first")
        return path
    target = path if file.name != "mmlu" else path.with_name("mmlu.tar")
    if not target.exists():
        download(_mirrored(file.url), target, sha256=file.sha256, progress=progress, **transfer)
    if file.name == "mmlu":
        _unpack(target, path)
    if file.task:
        _count(file, path)
    return path


def arrived_bytes(file: RemoteFile, folder: str | os.PathLike) -> int:
    """How much of an unfinished download is there."""
    path = Path(folder) / file.path
    part = part_path(path if file.name != "mmlu" else path.with_name("mmlu.tar"))
    return part.stat().st_size if part.is_file() else 0


def _mirrored(url: str) -> str:
    endpoint = (os.environ.get("HF_ENDPOINT") or _HUGGING_FACE).rstrip("/")
    return url.replace(_HUGGING_FACE, endpoint)


def _unpack(archive: Path, folder: Path) -> None:
    """Take the splits' CSV files out of MMLU's archive; the folder appears only when it is complete."""
    unfinished = folder.with_name(f".{folder.name}.tmp")
    try:
        with tarfile.open(archive) as packed:
            for member in packed:
                split, name = Path(member.name).parent.name, Path(member.name).name
                # Names beginning with "._" are what macOS adds to archives.
                if member.isfile() and split in _SPLITS and name.endswith(".csv") and not name.startswith("."):
                    member.name = f"{split}/{name}"
                    packed.extract(member, unfinished, filter="data")
        unfinished.rename(folder)
    except (tarfile.TarError, EOFError, FileNotFoundError) as error:
        archive.unlink()
        raise UsageError(f"{archive} is damaged and was removed ({error}); download it again") from None
    archive.unlink()


def _count(file: RemoteFile, path: Path) -> None:
    found = len(find_task(file.task).load(path))
    if found != file.examples:
        moved = path.with_name(path.name + ".wrong")
        path.rename(moved)
        raise UsageError(f"{file.url} has {found} examples instead of {file.examples}; what came is in {moved}")
