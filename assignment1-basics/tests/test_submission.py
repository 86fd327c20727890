"""Packing a member of a small workspace, and using the archive with nothing beside it."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from cs336_basics.command_line import UsageError, run_command
from cs336_basics.submission import main, make_archive

BACKEND = '[build-system]\nrequires = ["uv_build"]\nbuild-backend = "uv_build"\n'


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace of three members without outside packages: top needs middle, middle needs bottom."""
    root = tmp_path / "workspace"

    def project(folder: str, name: str, needs: str | None) -> None:
        path = root / folder
        (path / name).mkdir(parents=True)
        (path / name / "__init__.py").write_text(f"NAME = {name!r}\n")
        dependencies, source = (
            (f'["{needs}"]', f"[tool.uv.sources]\n{needs} = {{ workspace = true }}\n") if needs else ("[]", "")
        )
        (path / "pyproject.toml").write_text(
            f'[project]\nname = "{name}"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = {dependencies}\n'
            f"{BACKEND}{source}"
        )

    project("part1", "bottom", None)
    project("part2", "middle", "bottom")
    project("part3", "top", "middle")
    (root / "pyproject.toml").write_text(
        '[project]\nname = "whole"\nversion = "1"\nrequires-python = ">=3.11"\n'
        '[tool.uv]\nconstraint-dependencies = ["numpy<3"]\n[tool.uv.workspace]\nmembers = ["part*"]\n'
    )
    subprocess.run(["uv", "lock", "--quiet"], cwd=root, check=True, env=clean_environment())
    return root


def clean_environment() -> dict[str, str]:
    """The environment without the running project's virtual environment."""
    return {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}


def test_siblings_travel_and_the_lock_still_holds(workspace, tmp_path):
    archive = make_archive(workspace / "part3")
    assert archive.name == "top-submission.zip"
    elsewhere = tmp_path / "elsewhere"
    zipfile.ZipFile(archive).extractall(elsewhere)
    unpacked = elsewhere / "part3"
    assert (unpacked / "vendor/middle/middle/__init__.py").is_file()
    assert (unpacked / "vendor/bottom/bottom/__init__.py").is_file()
    assert 'constraint-dependencies = ["numpy<3"]' in (unpacked / "pyproject.toml").read_text()
    subprocess.run(["uv", "lock", "--check"], cwd=unpacked, check=True, env=clean_environment())

    # There is no workspace any more: packing again gives the same files.
    again = make_archive(unpacked)
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(archive).namelist())


def test_what_commands_made_is_left_out_and_results_are_taken(workspace):
    part = workspace / "part1"
    (part / ".gitignore").write_text("/data/\ntest_results.xml\n")
    for name in (
        "data/big.bin",
        "tests/data/small.txt",
        ".venv/lib.py",
        "bottom/__pycache__/x.pyc",
        "test_results.xml",
    ):
        (part / name).parent.mkdir(parents=True, exist_ok=True)
        (part / name).write_text("x")
    names = {Path(name).relative_to("part1").as_posix() for name in zipfile.ZipFile(make_archive(part)).namelist()}
    assert {"tests/data/small.txt", "test_results.xml", "uv.lock"} <= names
    assert not any(name.startswith((".venv", "data", "bottom/__pycache__")) for name in names)


def test_a_folder_without_a_project_is_refused(tmp_path, capsys):
    with pytest.raises(UsageError, match=r"holds no pyproject\.toml"):
        make_archive(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run_command(main, [str(tmp_path)])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
