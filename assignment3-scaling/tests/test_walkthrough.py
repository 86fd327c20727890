"""The README's walk-throughs, pasted into a shell: they cannot rot unseen."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- walkthrough (\d+) -->\n```sh\n(.*?)```", re.DOTALL)
BLOCKS = dict(BLOCK.findall((FOLDER / "README.md").read_text(encoding="utf-8")))


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def paste(tmp_path):
    """Runs a block in a folder of its own that shows the scripts, with the test's Python and a free port."""
    (tmp_path / "scripts").symlink_to(FOLDER / "scripts")

    def run(edition):
        port = str(free_port())
        commands = BLOCKS[edition].replace("uv run python", "python").replace(f"83{edition[2:]}", port)
        assert port in commands
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        stop = 'trap "kill \\$server 2>/dev/null; wait" EXIT\n'  # whatever fails, the server ends
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", stop + commands], cwd=tmp_path, env=environment,
            capture_output=True, text=True,
        )  # fmt: skip

    return run


@pytest.mark.slow
def test_2026(paste, tmp_path):
    done = paste("2026")
    assert done.returncode == 0, done.stderr
    assert "5 new runs would take" in done.stdout
    assert "isoFLOP, quadratic minimum" in done.stdout
    assert "the last one counts" in done.stdout
    rows = (tmp_path / "runs/2026.csv").read_text().splitlines()
    assert len(rows) == 1 + 15  # no run failed
    assert (tmp_path / "runs/fit-2026/report.html").is_file()


@pytest.mark.slow
def test_2025(paste, tmp_path):
    done = paste("2025")
    assert done.returncode == 0, done.stderr
    assert "isoFLOP, quadratic minimum" in done.stdout
    assert len((tmp_path / "runs/2025.csv").read_text().splitlines()) == 1 + 19
    used = re.search(r"used ([\d.e+]+)  reserved 0", done.stdout)
    assert float(used.group(1)) == pytest.approx(5 * 1e17 + 4e17)


def test_both_editions_are_there():
    assert set(BLOCKS) == {"2025", "2026"}
