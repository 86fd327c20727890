"""Perplexity under a language model of good text, in the three buckets of CCNet (Wenzek et al. 2020)."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from cs336_basics.command_line import UsageError
from cs336_data.document import Decision, Document
from cs336_data.fasttext_model import find_model
from cs336_data.ngram_model import BUCKETS, HEAD, MIDDLE, load_ngram_model

MODEL_NAME = "perplexity.npz"
HOW_TO_TRAIN = "train one with scripts/train_classifier.py"


class PerplexityFilter:
    """Keeps documents whose perplexity lies in the given buckets.

    Args:
        buckets: some of "head", "middle" and "tail".
        model: an n-gram model that scripts/train_classifier.py has trained; None takes `perplexity.npz` in `data` or
            `data/models`.

    Raises:
        UsageError: there is no model, or no such bucket.
    """

    name: ClassVar[str] = "perplexity"

    def __init__(self, buckets: Sequence[str] | str = (HEAD, MIDDLE), model: str | os.PathLike | None = None) -> None:
        self.buckets = frozenset([buckets] if isinstance(buckets, str) else buckets)
        if not self.buckets or self.buckets - set(BUCKETS):
            raise UsageError(f"buckets {sorted(self.buckets)} must be one or more of {', '.join(BUCKETS)}")
        path = find_model([MODEL_NAME]) if model is None else str(Path(model).resolve())
        if path is None:
            raise UsageError(f"there is no {MODEL_NAME} in data/models: {HOW_TO_TRAIN} perplexity")
        self.model = path
        load_ngram_model(path)

    def __call__(self, document: Document) -> Decision:
        """Keep the document if its bucket is wanted."""
        model = load_ngram_model(self.model)
        perplexity = model.perplexity(document.text)
        bucket = model.bucket(perplexity)
        # JSON has no infinity: a text without words has no perplexity.
        metadata = {"perplexity": perplexity if perplexity != float("inf") else None, "perplexity_bucket": bucket}
        if bucket in self.buckets:
            return Decision(True, metadata=metadata)
        wanted = ", ".join(name for name in BUCKETS if name in self.buckets)
        return Decision(False, f"perplexity {perplexity:.0f} is in the {bucket}, wanted: {wanted}", metadata=metadata)
