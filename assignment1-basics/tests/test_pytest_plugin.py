"""Under CI a skip is red unless its reason is one that CI cannot mend."""

import os
import subprocess
import sys

import pytest

SUITE = """
import pytest
def test_gpu(): pytest.skip("needs CUDA")
def test_package(): pytest.importorskip("a_package_that_is_missing")
@pytest.mark.skipif(True, reason="some tool is missing")
def test_tool(): pass
def test_data(shared_data): assert shared_data.is_dir()
@pytest.mark.xfail(strict=True)
def test_known_limit(): assert False
def test_passes(): pass
"""


@pytest.mark.parametrize(
    ("environment", "outcome"),
    [
        ({}, "2 passed, 3 skipped, 1 xfailed"),
        ({"CI": "true"}, "1 failed, 2 passed, 1 skipped, 1 xfailed, 1 error"),
    ],
)
def test_skips(tmp_path, environment, outcome):
    (tmp_path / "test_suite.py").write_text(SUITE)
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "CS336_DATA")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "cs336_basics.pytest_plugin", "-p", "no:cacheprovider", "."]
    run = subprocess.run(
        command,
        cwd=tmp_path,
        env={**inherited, "CS336_DATA": str(tmp_path), **environment},
        capture_output=True,
        text=True,
    )
    assert outcome in run.stdout.splitlines()[-1]


def test_data_that_ci_lacks_may_be_skipped(tmp_path):
    (tmp_path / "test_suite.py").write_text("def test_data(shared_data): pass\n")
    inherited = {name: value for name, value in os.environ.items() if name != "CS336_DATA"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "cs336_basics.pytest_plugin", "-p", "no:cacheprovider", "."]
    run = subprocess.run(command, cwd=tmp_path, env={**inherited, "CI": "true"}, capture_output=True, text=True)
    assert "1 skipped" in run.stdout.splitlines()[-1]
