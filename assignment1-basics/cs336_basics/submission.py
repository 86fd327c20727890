"""Packing an assignment's folder into an archive that runs anywhere: `python -m cs336_basics.submission [FOLDER]`.

Inside the monorepo an assignment leans on the workspace: its lock file, its settings and its sibling packages lie
outside its folder. The archive carries them: siblings go to `vendor/`, the root's `[tool.uv]` settings into the
assignment's `pyproject.toml`, and the root's lock is copied and pruned, so the versions stay those that were tested.
Unpacked somewhere else with nothing beside it, `uv run pytest` and this very command work again.
"""

import argparse
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pathspec
import tomlkit
from tomlkit import TOMLDocument

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError, run_command

# Never part of a hand-in, whatever the assignment's own .gitignore says.
ALWAYS_LEFT_OUT = (".*/", "__pycache__/", "*-submission.zip", "*.egg-info/")
LARGEST_FILE_MB = 50


def read_pyproject(folder: Path) -> TOMLDocument:
    """The folder's parsed `pyproject.toml`.

    Raises:
        UsageError: the folder has none.
    """
    path = folder / "pyproject.toml"
    if not path.is_file():
        raise UsageError(f"{folder} holds no pyproject.toml; give an assignment's folder")
    return tomlkit.parse(path.read_text(encoding="utf-8"))


def workspace_root(folder: Path) -> Path | None:
    """The nearest folder above `folder` whose `pyproject.toml` lists workspace members, or None."""
    for parent in folder.parents:
        if (parent / "pyproject.toml").is_file():
            workspace = read_pyproject(parent).unwrap().get("tool", {}).get("uv", {}).get("workspace", {})
            if any(folder in parent.glob(pattern) for pattern in workspace.get("members", [])):
                return parent
    return None


def files_to_pack(folder: Path) -> Iterator[Path]:
    """The folder's files, relative to it, less what its `.gitignore` and `ALWAYS_LEFT_OUT` name; sorted."""
    ignore = folder / ".gitignore"
    own_rules = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else []
    left_out = pathspec.GitIgnoreSpec.from_lines([*own_rules, *ALWAYS_LEFT_OUT, "!test_results.xml"])
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_symlink() or not path.is_file() or left_out.match_file(relative):
            continue
        if path.stat().st_size > LARGEST_FILE_MB * 2**20:
            print(f"left out: {relative} is larger than {LARGEST_FILE_MB} MB")
            continue
        yield relative


def copy_files(source: Path, target: Path) -> None:
    """Copy what `files_to_pack` lists from `source` to `target`, permissions included."""
    for relative in files_to_pack(source):
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / relative, target / relative)


def sibling_names(pyproject: TOMLDocument) -> list[str]:
    """Names of the packages that `pyproject` takes from the workspace."""
    sources = pyproject.get("tool", {}).get("uv", {}).get("sources", {})
    return [name for name, source in sources.items() if source.get("workspace")]


def detach_from_workspace(folder: Path, root: Path, staged: Path) -> None:
    """Turn the copy `staged` of the member `folder` of the workspace `root` into a project of its own.

    Args:
        folder: the member inside the workspace.
        root: the workspace's root.
        staged: a copy of `folder`; gets `vendor/`, a rewritten `pyproject.toml` and a pruned `uv.lock`.

    Raises:
        UsageError: uv cannot lock the result, with what uv says.
    """
    members = {
        read_pyproject(path)["project"]["name"]: path
        for pattern in read_pyproject(root).unwrap()["tool"]["uv"]["workspace"]["members"]
        for path in root.glob(pattern)
        if (path / "pyproject.toml").is_file()
    }

    def vendor(package: TOMLDocument, package_folder: Path, prefix: str) -> None:
        """Point every sibling of `package` at `prefix` + its name, copying it and its own siblings on first sight."""
        for name in sibling_names(package):
            sibling_folder = staged / "vendor" / name
            package["tool"]["uv"]["sources"][name] = {"path": f"{prefix}{name}"}
            if not sibling_folder.exists():
                copy_files(members[name], sibling_folder)
                sibling = read_pyproject(sibling_folder)
                vendor(sibling, sibling_folder, prefix="../")
        (package_folder / "pyproject.toml").write_text(tomlkit.dumps(package), encoding="utf-8")

    project = read_pyproject(staged)
    uv_settings = project.setdefault("tool", {}).setdefault("uv", {})
    for key, value in read_pyproject(root)["tool"]["uv"].items():
        if key not in ("workspace", "sources", "build-backend"):
            uv_settings.setdefault(key, value)
    uv_settings["workspace"] = tomlkit.table()  # its own root, even when unpacked inside another workspace
    vendor(project, staged, prefix="vendor/")
    shutil.copy2(root / "uv.lock", staged / "uv.lock")
    locked = subprocess.run(["uv", "lock", "--quiet"], cwd=staged, capture_output=True, text=True)
    if locked.returncode:
        raise UsageError(f"uv cannot lock {folder.name} apart from the workspace: {locked.stderr.strip()}")


def make_archive(folder: Path) -> Path:
    """Pack `folder` into `FOLDER/<project name>-submission.zip`.

    Raises:
        UsageError: `folder` is no project, or uv cannot lock it.
    """
    folder = folder.resolve()
    name = read_pyproject(folder)["project"]["name"]
    archive = folder / f"{name}-submission.zip"
    with tempfile.TemporaryDirectory() as scratch:
        staged = Path(scratch) / folder.name
        copy_files(folder, staged)
        root = workspace_root(folder)
        if root is not None:
            detach_from_workspace(folder, root, staged)
        with atomic_write(archive) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(staged.rglob("*")):
                if path.is_file():
                    packed.write(path, path.relative_to(scratch))
    return archive


def main(argv: Sequence[str] | None = None) -> None:
    """Command line of `python -m cs336_basics.submission`."""
    parser = argparse.ArgumentParser(description="Pack an assignment's folder into an archive that runs anywhere.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="the assignment's folder (default: here)")
    archive = make_archive(parser.parse_args(argv).folder)
    print(f"{archive} ({archive.stat().st_size / 2**20:.1f} MB)")


if __name__ == "__main__":
    run_command(main)
