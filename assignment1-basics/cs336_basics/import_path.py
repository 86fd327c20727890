"""The import path of a module of the package that is run by its file's path: `python cs336_basics/train.py`."""

import sys
from pathlib import Path


def leave_package_folder() -> None:
    """Take the package's folder from the front of the import path.

    Python puts the folder of a script there, and with it data.py, datasets.py or tokenizer.py would stand in for other
    packages' modules of these names.
    """
    if sys.path and Path(sys.path[0] or ".").resolve() == Path(__file__).resolve().parent:
        del sys.path[0]
