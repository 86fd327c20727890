"""Toxic speech: insults, slurs, threats and obscene language."""

import os
from typing import ClassVar

from cs336_data.filters.safety import SafetyFilter, Topic, classify
from cs336_data.lexicon import TOXIC_CATEGORIES

TOXIC = Topic(
    unsafe="toxic",
    safe="non-toxic",
    # Dolma's classifier (Soldaini et al. 2024, arXiv:2402.00159), then one trained by scripts/train_classifier.py.
    models=("jigsaw_fasttext_bigrams_hatespeech_final.bin", "toxic.bin"),
    categories=TOXIC_CATEGORIES,
)


def classify_toxic_speech(text: str, model: str | os.PathLike | None = None) -> tuple[str, float]:
    """("toxic" or "non-toxic", its probability in (0, 1]); see `safety.classify`."""
    return classify(text, TOXIC, model)


class ToxicSpeechFilter(SafetyFilter):
    """Rejects documents with toxic speech; see `SafetyFilter`."""

    name: ClassVar[str] = "toxic"
    topic: ClassVar[Topic] = TOXIC
