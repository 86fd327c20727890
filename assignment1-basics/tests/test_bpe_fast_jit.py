"""Where compiled kernels are kept, what is said about compiling, and that importing the package costs nothing."""

import os
import subprocess
import sys
from pathlib import Path

from cs336_basics.bpe.fast import jit

FIND = """
import numpy as np
from cs336_basics.bpe.fast.specials import find_special_tokens, pack_special_tokens
text = np.zeros(200, dtype=np.uint8)
find_special_tokens(text, 10, pack_special_tokens([b"<|end|>"]))
find_special_tokens(text, 20, pack_special_tokens([b"<|end|>", b"x"]))
"""


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, check=True, capture_output=True, text=True
    )


def test_compiling_is_announced_once_and_cached(tmp_path):
    first = run(FIND, NUMBA_CACHE_DIR=str(tmp_path))
    assert first.stderr.count("compiling the fast BPE path") == 1
    assert str(tmp_path) in first.stderr
    assert list(tmp_path.rglob("*.nbc"))
    assert run(FIND, NUMBA_CACHE_DIR=str(tmp_path)).stderr == ""


def test_importing_the_package_does_not_import_numba():
    run("import sys, cs336_basics.bpe.fast as fast; assert 'numba' not in sys.modules and 'torch' not in sys.modules")
    run("import sys; from cs336_basics.bpe.fast import FastEncoder; assert 'torch' not in sys.modules")


def test_cache_folder_is_beside_the_sources_or_else_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = tmp_path / "package"
    package.mkdir()
    (package / "source.py").write_text("a = 1")
    beside = jit.choose_cache_folder(package)
    assert beside.parent == package / "__pycache__"

    (package / "source.py").write_text("a = 2")
    assert jit.choose_cache_folder(package) != beside, "stale machine code would be run after an edit"

    no_folder = tmp_path / "read_only"
    no_folder.mkdir()
    (no_folder / "__pycache__").write_text("a file where the folder should be: nothing can be written there")
    assert jit.choose_cache_folder(no_folder).parent == tmp_path / "cache"

    monkeypatch.setenv("XDG_CACHE_HOME", str(no_folder / "__pycache__"))
    last_resort = jit.choose_cache_folder(no_folder)
    assert last_resort.is_dir()
    last_resort.rmdir()

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "chosen"))
    assert jit.choose_cache_folder(package).parent == Path(tmp_path / "chosen")
