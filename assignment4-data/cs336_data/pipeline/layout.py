"""Where a run's files lie in its folder.

kept/KEY.jsonl.zst        the result: one shard for every input file
rejected/KEY.jsonl.zst    with --keep_rejected
report.html, report.json
work/                     what a rerun goes on from; no longer needed once the result is there
"""

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

SHARD_SUFFIX = ".jsonl.zst"


@dataclass(frozen=True)
class Layout:
    """The paths of a run's files.

    Args:
        folder: the run's folder.
    """

    folder: Path

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def configuration(self) -> Path:
        return self.work / "configuration.json"

    @property
    def lock(self) -> Path:
        return self.work / "lock"

    @property
    def report_html(self) -> Path:
        return self.folder / "report.html"

    @property
    def report_json(self) -> Path:
        return self.folder / "report.json"

    def filtered(self, key: str) -> Path:
        """The documents that the filters kept."""
        return self.work / "filtered" / f"{key}{SHARD_SUFFIX}"

    def filtered_rejected(self, key: str) -> Path:
        """The documents that the filters rejected."""
        return self.work / "filtered_rejected" / f"{key}{SHARD_SUFFIX}"

    def filter_marker(self, key: str) -> Path:
        """Says that the unit is filtered."""
        return self.work / "filtered" / f"{key}.done.json"

    def signed(self, key: str) -> Path:
        """What matching needs to know of the unit's filtered documents: files of which this is the beginning."""
        return self.work / "signed" / key

    def identities(self, key: str) -> Path:
        """The ids and URL hashes of the unit's filtered documents."""
        return self.work / "signed" / f"{key}.identities.npy"

    def sign_marker(self, key: str) -> Path:
        """Says that the unit's documents are signed."""
        return self.work / "signed" / f"{key}.done.json"

    def line_run(self, key: str) -> Path:
        """The sorted hashes of the unit's lines."""
        return self.work / "lines" / f"{key}.npy"

    @property
    def repeated_lines(self) -> Path:
        """The hashes of the lines that occur more than once."""
        return self.work / "repeated_lines.npy"

    def stage_marker(self, stage: str) -> Path:
        """Says that a stage over all units is complete."""
        return self.work / f"{stage}.done.json"

    def removals(self, key: str) -> Path:
        """Which of the unit's filtered documents deduplication removes."""
        return self.work / "removals" / f"{key}.json"

    def shard_marker(self, key: str) -> Path:
        """Says that the unit's final shard is written."""
        return self.work / "shards" / f"{key}.done.json"

    def kept(self, key: str) -> Path:
        """The unit's final shard."""
        return self.folder / "kept" / f"{key}{SHARD_SUFFIX}"

    def rejected(self, key: str) -> Path:
        """The unit's rejected documents, deduplication's included."""
        return self.folder / "rejected" / f"{key}{SHARD_SUFFIX}"

    def remove_final(self) -> None:
        """Remove the result and the report, which no longer fit what the run is asked for."""
        for path in (self.folder / "kept", self.folder / "rejected"):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.report_html, self.report_json):
            path.unlink(missing_ok=True)

    def remove_final_except(self, keys: Collection[str]) -> None:
        """Remove the final shards of all other units."""
        names = {f"{key}{SHARD_SUFFIX}" for key in keys}
        for folder in (self.folder / "kept", self.folder / "rejected"):
            for path in folder.glob(f"*{SHARD_SUFFIX}"):
                if path.name not in names:
                    path.unlink()

    def remove_results(self) -> None:
        """Remove all that an earlier run has made."""
        self.remove_final()
        for path in self.work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)

    def remove_partial_files(self) -> None:
        """Remove what a killed run left half-written; nobody else may be at work in the folder."""
        for folder, _, names in os.walk(self.folder):
            for name in names:
                if name.startswith(".") and name.endswith(".tmp"):
                    Path(folder, name).unlink()
