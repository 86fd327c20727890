"""Importance weights: keeps documents as likely as their n-grams are in the target (DSIR, Xie et al. 2023).

DSIR draws from a whole corpus at once (`importance_weights.resample`). A filter sees one document at a time: it keeps
those whose perturbed weight reaches the limit that the share to keep reached in a sample, which for a corpus like the
sample is the same draw.
"""

import os
from pathlib import Path
from typing import ClassVar

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document
from cs336_data.fasttext_model import find_model
from cs336_data.importance_weights import load_importance_model

MODEL_NAME = "importance.npz"


class ImportanceFilter:
    """Keeps documents by their importance weights.

    Args:
        model: a model that scripts/train_classifier.py has fitted; None takes `importance.npz` in `data` or
            `data/models`.

    Raises:
        UsageError: there is no model.
    """

    name: ClassVar[str] = "importance"

    def __init__(self, model: str | os.PathLike | None = None) -> None:
        path = find_model([MODEL_NAME]) if model is None else str(Path(model).resolve())
        if path is None:
            raise UsageError(
                f"there is no {MODEL_NAME} in data/models: train one with scripts/train_classifier.py importance"
            )
        self.model = path
        load_importance_model(path)

    def __call__(self, document: Document) -> Decision:
        """Keep the document if its perturbed weight reaches the model's threshold."""
        model = load_importance_model(self.model)
        score = model.perturbed(document.text)
        metadata = {"importance_log_weight": model.log_weight(document.text)}
        if score >= model.threshold:
            return Decision(True, metadata=metadata)
        reason = f"perturbed log importance weight {score:.1f}, at least {model.threshold:.1f} is needed"
        return Decision(False, reason, metadata=metadata)
