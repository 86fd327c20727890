"""The documents that commands work on unless told otherwise: what the pipeline makes of its small web."""

from pathlib import Path

from cs336_data.pipeline.command import DEFAULT_OUT
from cs336_data.pipeline.command import main as filter_pages


def default_run(smoke: bool = False) -> Path:
    """The folder of the pipeline's default run, with `kept` and `rejected` documents in it.

    Args:
        smoke: the one of the pipeline's `--smoke`.
    """
    folder = DEFAULT_OUT / "smoke" if smoke else DEFAULT_OUT
    if not any(folder.glob("kept/*")):
        print(f"no documents in {folder}: filtering a small web first")
        filter_pages(["--keep_rejected", "--quiet", *(["--smoke"] if smoke else [])])
    return folder
