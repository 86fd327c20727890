"""The command line of the downloads: models by name, Common Crawl files by crawl and index."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from cs336_data.downloads import (
    COMMON_CRAWL_URL,
    KINDS,
    MODELS,
    Model,
    arrived_bytes,
    get_crawl_files,
    get_model,
    parse_indices,
    select_models,
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Download classifiers and files of Common Crawl. Without arguments, show which models are there; "
        "this needs no network.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--models", nargs="+", metavar="NAME", default=[], help=f"models to get: {', '.join(MODELS)} or all"
    )
    parser.add_argument("--models_dir", type=Path, default=Path("data/models"), help="the models' folder")
    parser.add_argument("--crawl", help="the crawl to get files of, such as CC-MAIN-2024-22")
    parser.add_argument("--kind", choices=KINDS, default="wet", help="pages, their text, or their metadata")
    parser.add_argument("--index", default="0", help="places in the crawl's list of files, such as 0,3,10-19")
    parser.add_argument("--crawl_dir", type=Path, default=Path("data/crawl"), help="the folder for crawls")
    parser.add_argument("--verify", action="store_true", help="read every record of the files afterwards")
    parser.add_argument("--base_url", default=COMMON_CRAWL_URL, help="the server of Common Crawl, or a mirror")
    parser.add_argument("--tries", type=int, default=6, help="tries in a row without a byte gained before giving up")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; `argv` without the program's name."""
    arguments = _parser().parse_args(argv)
    for model in select_models(arguments.models):
        print(get_model(model, arguments.models_dir, tries=arguments.tries))
    if arguments.crawl:
        files = get_crawl_files(
            arguments.crawl,
            arguments.kind,
            parse_indices(arguments.index),
            arguments.crawl_dir,
            base_url=arguments.base_url.rstrip("/"),
            verify=arguments.verify,
            tries=arguments.tries,
        )
        print(*files, sep="\n")
    if not (arguments.models or arguments.crawl):
        for model in MODELS.values():
            state = _state(model, arguments.models_dir)
            print(f"{model.file_name:46} {model.num_bytes / 1e6:8.1f} MB  {state:12}  {model.purpose}; {model.terms}")


def _state(model: Model, folder: Path) -> str:
    path = folder / model.file_name
    if path.is_file():
        return "present" if path.stat().st_size == model.num_bytes else "wrong size"
    arrived = arrived_bytes(path)
    return f"{100 * arrived / model.num_bytes:.0f} % there" if arrived else "not there"
