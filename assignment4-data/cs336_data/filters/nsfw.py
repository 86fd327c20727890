"""Not safe for work: sexual content and obscene language."""

import os
from typing import ClassVar

from cs336_data.filters.safety import SafetyFilter, Topic, classify
from cs336_data.lexicon import NSFW_CATEGORIES

NSFW = Topic(
    unsafe="nsfw",
    safe="non-nsfw",
    # Dolma's classifier (Soldaini et al. 2024, arXiv:2402.00159), then one trained by scripts/train_classifier.py.
    models=("jigsaw_fasttext_bigrams_nsfw_final.bin", "nsfw.bin"),
    categories=NSFW_CATEGORIES,
)


def classify_nsfw(text: str, model: str | os.PathLike | None = None) -> tuple[str, float]:
    """("nsfw" or "non-nsfw", its probability in (0, 1]); see `safety.classify`."""
    return classify(text, NSFW, model)


class NsfwFilter(SafetyFilter):
    """Rejects documents with sexual content or obscene language; see `SafetyFilter`."""

    name: ClassVar[str] = "nsfw"
    topic: ClassVar[Topic] = NSFW
