"""The tiny base model after supervised fine-tuning: where reinforcement learning and learning from preferences start.

Those need a policy that is right now and then; the base model never is.
"""

from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from cs336_alignment.default_task.base_model import DEFAULT_FOLDER, ensure_default_model, model_folder
from cs336_alignment.default_task.made_once import make_once, recipe_in
from cs336_alignment.sft.config import SFTConfig
from cs336_alignment.sft.train import make_trainer
from cs336_alignment.training.config import config_from_settings
from cs336_alignment.training.loop import train
from cs336_basics.trainer.random_state import capture_random_state, restore_random_state


def tuned_model_folder(folder: Path = DEFAULT_FOLDER, smoke: bool = False) -> Path:
    """Where the fine-tuned model lies, or will lie."""
    base = model_folder(folder, smoke)
    return base.with_name(f"{base.name}-sft")


def ensure_tuned_model(folder: Path = DEFAULT_FOLDER, smoke: bool = False, progress: bool = True) -> Path:
    """The folder of the base model after `scripts/sft.py`; it is fine-tuned first unless it is there already.

    Args:
        folder: where models are kept, made if it is missing.
        smoke: that of `--smoke`, made in seconds; it answers nothing rightly.
        progress: show a progress bar.

    Returns:
        A folder that `transformers` opens, below `folder`.
    """
    base = ensure_default_model(folder, smoke, progress)
    # Evaluations change no training, and nobody is to read them here.
    unread = {"no_answers": True, "val_examples": 1, "eval_every": 0, "save_every": 0}
    config = config_from_settings(SFTConfig, {"model": str(base), "device": "cpu", "smoke": smoke, **unread})
    recipe = {"base": recipe_in(base), "sft": {**config.to_dict(), "model": base.name}}
    tuned = tuned_model_folder(folder, smoke)
    return make_once(
        tuned,
        recipe,
        lambda scratch: _fine_tune(replace(config, out=str(scratch)), progress),
        f"no fine-tuned model in {tuned}: fine-tuning {base} as scripts/sft.py does",
    )


def _fine_tune(config: SFTConfig, progress: bool) -> Path:
    """Fine-tune; the caller's random numbers stay what they would have been without it."""
    random_state = capture_random_state()
    trainer = make_trainer(config)
    with tqdm(total=trainer.num_steps, desc="fine-tuning", unit="step", disable=not progress) as bar:
        result = train(trainer, progress=False, on_step=lambda entry: bar.update())
    restore_random_state(random_state)
    if result.model is None:  # the trainer has caught a Ctrl-C; settings that are always the same do not diverge
        raise KeyboardInterrupt
    return result.model
