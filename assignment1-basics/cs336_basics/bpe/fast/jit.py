"""How the kernels are compiled: `@kernel` is numba's `njit` without the GIL, with a cache on disk.

The first use compiles (some 15 to 30 seconds on one core) and says so in one line on standard error; later processes
load the machine code from the cache in a fraction of a second. numba notices a change in the file that defines a
kernel, but not in a file whose functions the kernel calls. So the cache folder's name holds a digest of all
sources of this package: any edit leads to a fresh folder, and stale machine code is never run.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import event

Function = TypeVar("Function", bound=Callable[..., Any])
_PACKAGE = __name__.rpartition(".")[0]


def is_writable(folder: Path) -> bool:
    """Whether files can be made in the folder, which is made if it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def choose_cache_folder(package_folder: Path) -> Path:
    """`NUMBA_CACHE_DIR` if set; else beside the sources, else the user's cache, else a fresh temporary folder."""
    sources = sorted(package_folder.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    name = f"cs336-bpe-{digest}"
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"]) / name
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    for candidate in (package_folder / "__pycache__" / name, user_cache / name):
        if is_writable(candidate):
            return candidate
    return Path(tempfile.mkdtemp(prefix=name))


CACHE_FOLDER = choose_cache_folder(Path(__file__).parent)
"""Where the machine code is kept between processes."""


class _Announcement(event.Listener):
    """Says once per process that kernels of this package are being compiled."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: event.Event) -> None:
        module = event.data["dispatcher"].py_func.__module__
        if not self._said and module.startswith(_PACKAGE):
            self._said = True
            print(
                f"compiling the fast BPE path (once, 15 to 30 s; kept in {CACHE_FOLDER})", file=sys.stderr, flush=True
            )

    def on_end(self, event: event.Event) -> None:
        """Nothing to say at the end."""


event.register("numba:compile", _Announcement())


def kernel(function: Function) -> Function:
    """Compile `function` on first call: no GIL, no bounds checks, cached in `CACHE_FOLDER`."""
    configured = numba.config.CACHE_DIR
    # numba reads the setting when it decorates; other users of numba in this process keep their own folder.
    numba.config.CACHE_DIR = str(CACHE_FOLDER)
    try:
        return numba.njit(nogil=True, cache=True, boundscheck=False, error_model="numpy")(function)
    finally:
        numba.config.CACHE_DIR = configured
