"""The quickstart's course of action: the folder, then one chapter after the other.

What has been made is kept in one folder. A run that was stopped goes on from there when it is started again with the
same settings; one that had ended, or other settings, starts anew.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from cs336.quickstart.steps import Workshop
from cs336.quickstart.telling import Clock, Teller
from cs336.quickstart.text import read_text
from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.device import resolve_device

LEAST_MINUTES = 0.2
MARKER = "quickstart.json"
MADE_FOLDERS = ("text", "data", "tokenizer", "checkpoints", "run")
MADE_FILES = ("report.html", "plan.json")


def run_quickstart(out: Path, minutes: float, text: Path | None, device: str, seed: int) -> None:
    """Do it all.

    Args:
        out: folder of everything that is made.
        minutes: wall-clock time for the whole process.
        text: the user's own text, or None for generated stories.
        device: as for `resolve_device`.
        seed: of the stories, the weights and the samples.

    Raises:
        UsageError: a setting is out of range, or the text or the folder cannot be used.
        KeyboardInterrupt: the user stopped it; the same command goes on.
    """
    if not LEAST_MINUTES <= minutes < 1e6:
        raise UsageError(f"--minutes {minutes:g} is not possible; it must be at least {LEAST_MINUTES}")
    if seed < 0:
        raise UsageError(f"--seed {seed} is negative; it must be 0 or more")
    resolve_device(device)
    if text is not None:
        _check_text(text, out, minutes)
    request = {"minutes": minutes, "text": _identity(text), "device": device, "seed": seed}
    clock, teller = Clock(minutes), Teller()
    teller.console.print(
        f"[bold]CS336 quickstart[/]: a tokenizer and a language model, from scratch, in about {minutes:g} minutes."
    )
    if resumed := _open_folder(out, request):
        teller.say(f"An earlier run with the same settings was stopped; going on with it in {out}.")
    try:
        report = _all_chapters(Workshop(out, minutes, device, seed, clock, teller, resumed), text)
    except KeyboardInterrupt:
        teller.say("\nInterrupted. The same command goes on from here.")
        raise
    _mark(out, {**request, "done": True})
    teller.say(f"\nDone in {clock.elapsed_s / 60:.1f} minutes. The report, to open in a browser:")
    print(report.resolve())


def _all_chapters(workshop: Workshop, text: Path | None) -> Path:
    workshop.prepare_text(text)
    workshop.train_tokenizer()
    workshop.encode()
    workshop.plan()
    workshop.train()
    workshop.write()
    return workshop.report()


def _check_text(text: Path, out: Path, minutes: float) -> None:
    """Refuse what cannot be trained on before anything that an earlier run has made is removed.

    Raises:
        UsageError: it is not there, not UTF-8 or too short, or it lies where things are removed.
    """
    if not text.is_file():
        raise UsageError(f"--text {text} is not a file")
    if text.resolve().is_relative_to(out.resolve()):
        raise UsageError(f"--text {text} lies in --out {out}, where older files are removed; keep it elsewhere")
    read_text(text, minutes)


def _identity(text: Path | None) -> dict[str, Any] | None:
    if text is None:
        return None
    status = text.stat()
    return {"path": str(text.resolve()), "bytes": status.st_size, "changed_ns": status.st_mtime_ns}


def _open_folder(out: Path, request: dict[str, Any]) -> bool:
    """Make the folder ready and say whether an unfinished run with the same settings is in it.

    Raises:
        UsageError: the folder holds something else, which must not be overwritten.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; it must be a folder")
    try:
        begun = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        begun = None
        if out.is_dir() and any(out.iterdir()):
            raise UsageError(f"--out {out} holds other files; name a new or an empty folder") from None
    resumed = begun == {**request, "done": False}
    if not resumed:
        for name in MADE_FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
        for name in MADE_FILES:
            (out / name).unlink(missing_ok=True)
    _mark(out, {**request, "done": False})
    return resumed


def _mark(out: Path, state: dict[str, Any]) -> None:
    with atomic_write(out / MARKER, "w") as file:
        json.dump(state, file, indent=1)
