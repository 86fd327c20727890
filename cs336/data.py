"""`cs336 data`: the course's data sets on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from cs336_basics.datasets import DATASETS, dataset_state, get_dataset, select


def data_folder(out: Path | None) -> Path:
    """The folder asked for, or where assignment 1 looks for its texts."""
    if out is not None:
        return out
    assignment = Path("assignment1-basics")
    return assignment / "data" if assignment.is_dir() else Path("data")


def show_datasets(out: Path | None) -> None:
    """Print a table of all data sets."""
    folder = data_folder(out)
    table = Table(title=f"Data sets in {folder}")
    table.add_column("name", no_wrap=True)
    for column in ("text", "download"):
        table.add_column(column, justify="right", no_wrap=True)
    for column in ("here", "file", "terms"):
        table.add_column(column, overflow="fold")
    for dataset in DATASETS.values():
        size, download = (f"{number / 1e9:.2f} GB" for number in (dataset.num_bytes, dataset.remote_bytes))
        table.add_row(dataset.name, size, download, dataset_state(dataset, folder), dataset.file_name, dataset.terms)
    Console().print(table)


def get_datasets(names: list[str], out: Path | None) -> None:
    """Download data sets one after the other."""
    chosen = {dataset.name: dataset for name in names for dataset in select(name)}
    for dataset in chosen.values():
        path = get_dataset(dataset, data_folder(out))
        print(f"{dataset.name}: {path} ({path.stat().st_size:,} bytes, checksum right)")
