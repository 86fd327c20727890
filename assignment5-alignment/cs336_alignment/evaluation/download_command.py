"""The command that gets benchmarks and preference data (`scripts/download_data.py`)."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_alignment.evaluation.downloads import FILES, RemoteFile, arrived_bytes, get_file, select_files


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description="Download benchmarks and preference data. Without names, show what is there (no network needed).",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to get: all, gsm8k, hh, {', '.join(FILES)}")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="the folder for it")
    parser.add_argument("--tries", type=int, default=6, help="tries in a row without a byte gained before giving up")
    arguments = parser.parse_args(argv)
    for file in select_files(arguments.names):
        print(get_file(file, arguments.data_dir, tries=arguments.tries))
    if not arguments.names:
        for file in FILES.values():
            print(f"{file.name:35} {_state(file, arguments.data_dir):18} {file.terms:14} {file.url}")


def _state(file: RemoteFile, folder: Path) -> str:
    if (folder / file.path).exists():
        return "there"
    arrived = arrived_bytes(file, folder)
    return f"{arrived / 1e6:.1f} MB arrived" if arrived else "not there"
