"""The interpretable quality model: a logistic model on the statistics of a text, in a JSON file to be read."""

import json
import os
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_data.logistic_regression import LogisticModel
from cs336_data.quality_statistics import NAMES, quality_statistics

_DIGITS = 6


def packaged_model() -> str:
    """The path of the model that comes with the package; how it was made is in the file."""
    return str(resources.files("cs336_data").joinpath("quality_statistics.json"))


def save_model(model: LogisticModel, path: str | os.PathLike, provenance: dict[str, Any]) -> None:
    """Write the model and where it comes from as JSON."""
    table = {
        name: {"mean": round(mean, _DIGITS), "scale": round(scale, _DIGITS), "weight": round(weight, _DIGITS)}
        for name, mean, scale, weight in zip(
            NAMES, model.mean.tolist(), model.scale.tolist(), model.weights.tolist(), strict=True
        )
    }
    with atomic_write(path, "w") as file:
        json.dump({"provenance": provenance, "bias": round(model.bias, _DIGITS), "statistics": table}, file, indent=1)
        file.write("\n")
    load_model.cache_clear()


@lru_cache(maxsize=4)
def load_model(path: str) -> LogisticModel:
    """The model in a file that `save_model` wrote.

    Raises:
        UsageError: there is no such file, or it is no such model.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [record["statistics"][name] for name in NAMES]
        mean, scale, weights = (np.array([float(row[key]) for row in rows]) for key in ("mean", "scale", "weight"))
        return LogisticModel(mean, scale, weights, float(record["bias"]))
    except FileNotFoundError:
        raise UsageError(f"quality model {path!r} is no file") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path!r} is no quality model with the statistics {', '.join(NAMES)}: {error!r}") from None


def reference_probability(path: str, text: str) -> float:
    """The probability that a text is a work of reference rather than any page of a crawl, in [0, 1]."""
    return float(load_model(path).probability(quality_statistics(text)))


def strongest_statistics(path: str, text: str, count: int = 3) -> list[tuple[str, float]]:
    """The statistics that speak most against a text, with what each adds to the log-odds, the worst first."""
    model = load_model(path)
    parts = (model.standardized(quality_statistics(text)) * model.weights).tolist()
    against = [(name, part) for name, part in zip(NAMES, parts, strict=True) if part < 0]
    return sorted(against, key=lambda entry: entry[1])[:count]
