"""The two main runs: the same model, for equally many steps, on TinyStories and on OpenWebText."""

from cs336_basics.experiments.study import BASE_SETTINGS, VOCAB_SIZES, Run, Scale, Study

RATE = 1e-3


def tinystories(scale: Scale) -> Study:
    """The base model on TinyStories (generated stories where it was not downloaded)."""
    return Study(
        name="tinystories",
        title="TinyStories",
        question=(
            "How good does the base model become on TinyStories? With the handout's budget its validation loss should "
            "reach 1.45 nats per token, with the low-resource budget 2.00."
        ),
        base={**BASE_SETTINGS[scale], "max_lr": RATE},
        runs=(Run("base_model"),),
        vocab_size=VOCAB_SIZES["tinystories"][scale],
    )


def openwebtext(scale: Scale) -> Study:
    """The same model and number of steps on OpenWebText, with a larger vocabulary."""
    return Study(
        name="openwebtext",
        title="OpenWebText",
        question=(
            "How does the same model do on web text after as many steps? Its loss is not comparable with that on "
            "TinyStories: the text is harder to predict and the tokens are others. The samples tell more."
        ),
        base={**BASE_SETTINGS[scale], "max_lr": RATE},
        runs=(Run("base_model"),),
        corpus="openwebtext",
        vocab_size=VOCAB_SIZES["openwebtext"][scale],
    )
