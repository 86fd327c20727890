"""The record of a run: `metrics.jsonl` (one JSON object per logged step), and Weights & Biases if asked for.

Keys of an entry: `step`, `seconds` (wall clock since the run began), `tokens` (seen in training); at log steps also
`train_loss` (nats per token, of that step's batch), `lr`, `grad_norm` (before clipping), `tokens_per_second` (since the
last entry, validation and saving not counted) and `mfu` (model FLOPs utilization, or null); at validations `val_loss`.
"""

import json
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from cs336_basics.atomic_file import atomic_write

if TYPE_CHECKING:
    from wandb import Run

METRICS_NAME = "metrics.jsonl"
# A run that waits longer than this for the Weights & Biases server goes on offline.
_WANDB_PATIENCE_SECONDS = 20


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The entries of a metrics file, in order; a last line that was cut off by a kill is left out."""
    entries = []
    for line in Path(path).read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            entries.append(json.loads(line))
    return entries


class RunLog:
    """Appends entries to a metrics file, each on disk before the next step, and mirrors them to wandb.

    Args:
        run_dir: the folder of `metrics.jsonl`, made if it is missing.
        resume_step: None starts the file anew; a step keeps the entries up to it and drops later ones, which the
            resumed run will write again.
        name: of the file, for records other than metrics that are kept by step.
    """

    def __init__(self, run_dir: str | os.PathLike, resume_step: int | None = None, name: str = METRICS_NAME) -> None:
        self.path = Path(run_dir) / name
        kept = []
        if resume_step is not None and self.path.exists():
            kept = [entry for entry in read_metrics(self.path) if entry["step"] <= resume_step]
        with atomic_write(self.path, "w") as file:
            file.writelines(_line(entry) for entry in kept)
        self._file = open(self.path, "a", encoding="utf-8", newline="")  # noqa: SIM115 - closed by close()
        self._wandb: Run | None = None

    def start_wandb(self, project: str, name: str | None, config: dict[str, Any], run_id: str) -> None:
        """Mirror every further entry to Weights & Biases.

        Without a key or a connection the run is recorded offline beside the metrics; `wandb sync` uploads it later.

        Args:
            project, name: as shown on the site.
            config: the settings of the run.
            run_id: a resumed run gives the same one and is continued.
        """
        import wandb

        mode = os.environ.get("WANDB_MODE") or ("online" if _has_wandb_key() else "offline")
        settings = wandb.Settings(init_timeout=_WANDB_PATIENCE_SECONDS, console="off")
        arguments = {"project": project, "name": name, "config": config, "id": run_id, "dir": self.path.parent}
        try:
            self._wandb = wandb.init(**arguments, mode=mode, resume="allow", settings=settings)
        except wandb.errors.Error as error:
            print(f"Weights & Biases cannot be reached ({error}); logging offline", file=sys.stderr)
            self._wandb = wandb.init(**arguments, mode="offline", settings=settings)

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry; `entry["step"]` must not fall from entry to entry, and grow where wandb is told too."""
        self._file.write(_line(entry))
        self._file.flush()
        if self._wandb is not None:
            self._wandb.log({name: value for name, value in entry.items() if name != "step"}, step=entry["step"])

    def close(self) -> None:
        """Close the file and end the wandb run."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class SilentLog(RunLog):
    """The log of a process that leaves logging to another one: it writes nothing."""

    def __init__(self, run_dir: str | os.PathLike, name: str = METRICS_NAME) -> None:
        self.path = Path(run_dir) / name

    def start_wandb(self, project: str, name: str | None, config: dict[str, Any], run_id: str) -> None:
        pass

    def write(self, entry: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, allow_nan=False) + "\n"


def _has_wandb_key() -> bool:
    import wandb

    return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)
