"""Training a model on the documents: settings from YAML and flags, assignment 2's trainer, samples at the end.

uv run python scripts/train_model.py --config configs/train_gpt2_small.yaml --valid_tokens paloma_c4_100.bin
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from cs336_basics.atomic_file import atomic_write
from cs336_basics.bpe.vocab_files import fingerprint
from cs336_basics.command_line import UsageError
from cs336_basics.generate import generate_text, load_trained
from cs336_basics.sampling import SamplingSettings
from cs336_basics.token_file import load_tokens, read_sidecar, sidecar_path
from cs336_basics.tokenizer import Tokenizer
from cs336_basics.train import config_from_settings
from cs336_basics.trainer.loop import TrainResult
from cs336_basics.training_config import build_parser, setting
from cs336_basics.training_data import TRAIN_NAME, VALID_NAME
from cs336_data.tokenize_command import DEFAULT_OUT as DEFAULT_TOKENS
from cs336_data.tokenize_command import main as tokenize
from cs336_systems.parallel_training.config import ParallelTrainConfig
from cs336_systems.process_group import started_by_torchrun
from cs336_systems.train import torchrun_rank, train_and_tell

PROGRAM = "scripts/train_model.py"
DEFAULT_CONFIG = Path("configs/train_small_cpu.yaml")
SMOKE: dict[str, Any] = {
    "data_dir": str(DEFAULT_TOKENS / "smoke"), "tokenizer_dir": str(DEFAULT_TOKENS / "smoke" / "tokenizer"),
    "save_ckp_path": "checkpoints/smoke", "run_dir": "runs/smoke", "d_model": 64, "num_layers": 2, "num_heads": 4,
    "context_len": 64, "batch_size": 8, "train_steps": 20, "max_lr": 3e-3, "val_interval": 10, "val_batches": 2,
    "save_intervals": 10, "log_intervals": 5, "parallel": "ddp", "processes": 2, "num_samples": 1,
    "sample_tokens": 40, "no_wandb": True,
}  # fmt: skip
"""What `--smoke` sets where the command line does not say otherwise."""
LINKS = "tokens"
"""Beside the checkpoints: the folder that leads to token files given by name."""


@dataclass(frozen=True)
class ModelTrainConfig(ParallelTrainConfig):
    """Assignment 2's settings, token files by name, and what to write with the model in the end.

    Raises:
        UsageError: a value is out of range, or values do not go together.
    """

    train_tokens: str | None = setting(None, "token file to train on", type=str, shown="train.dat in data_dir")
    valid_tokens: str | None = setting(
        None, "token file to validate on (flat ids of the same tokenizer)", type=str, shown="valid.dat in data_dir"
    )
    prompt: str = setting("", "what the samples begin with; nothing: a new document")
    num_samples: int = setting(3, "texts written by the trained model")
    sample_tokens: int = setting(128, "the most tokens of a sample")
    temperature: float = setting(0.8, "of the samples; 0 takes the likeliest token each time")
    top_p: float = setting(0.95, "samples take among the likeliest tokens of this total probability")

    def __post_init__(self) -> None:
        super().__post_init__()
        SamplingSettings(self.temperature, None, self.top_p)
        for name in ("num_samples", "sample_tokens"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; allowed are whole numbers from 0")


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML file, whose keys are names of flags.

    Raises:
        UsageError: there is no such file, it is not YAML, or a key is unknown.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"there is no configuration {path}; those of the project lie in configs/") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{path} must hold settings, one NAME: VALUE in a line")
    known = {spec.name: spec.metadata["type"] for spec in fields(ModelTrainConfig)}
    for name, value in settings.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"{PROGRAM} --help lists all"
            raise UsageError(f"{path}: setting {name!r} is unknown; {hint}")
        if known[name] is float and isinstance(value, str):
            settings[name] = _number(value)  # to YAML 1.1, 1e-3 is a word and 1.0e-3 a number
    return settings


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # the settings say what is wrong with it


def config_from_arguments(argv: Sequence[str] | None = None) -> ModelTrainConfig:
    """The settings that a command line asks for: those of the configuration, overruled by flags.

    With `--resume_ckp` and without `--config`, those that it leaves out come from the checkpoint.

    Raises:
        UsageError: a setting is unknown or out of range, or the checkpoint cannot be resumed with these settings.
    """
    parser = build_parser(ModelTrainConfig)
    parser.prog, parser.description = Path(PROGRAM).name, "Train a language model on tokenized documents."
    parser.add_argument(
        "--config", type=Path, help=f"YAML file of settings, overruled by flags (default: {DEFAULT_CONFIG})"
    )
    parser.add_argument(
        "--smoke", action="store_true", default=False,
        help="a run of a few seconds instead, in two processes, on a small web of its own (default: False)",
    )  # fmt: skip
    given = vars(parser.parse_args(argv))
    smoke, path = given.pop("smoke"), given.pop("config", None)
    if path is not None:
        given = {**read_config(path), **given}
    elif smoke:
        given = {**SMOKE, **given}
    elif "resume_ckp" not in given:
        given = {**read_config(DEFAULT_CONFIG), **given}
    return config_from_settings(given, ModelTrainConfig)


def main(argv: Sequence[str] | None = None) -> None:
    """The program: train as `argv` says, print how it went, and let the model write.

    Raises:
        SystemExit: with code 1 if the run diverged or a process died, 130 if it was interrupted.
    """
    config = config_from_arguments(argv)
    config = with_tokens(config, is_first=not started_by_torchrun() or torchrun_rank() == 0)
    result = train_and_tell(config, PROGRAM)
    for text in write_samples(config, result):
        print(f"--- sample\n{text}")


def with_tokens(config: ModelTrainConfig, is_first: bool = True) -> ModelTrainConfig:
    """The settings with the folder in which the trainer finds its token files, made if need be.

    The trainer wants `train.dat` and `valid.dat` in one folder. For files given by name that is a folder of links
    beside the checkpoints, so that a resumed run finds them, too. The default tokens are made where they are missing.

    Args:
        config: the settings.
        is_first: whether this process is the one of several that makes things.

    Raises:
        UsageError: a token file is missing or damaged, or the tokenizer is not the one that made them.
    """
    folder = Path(config.data_dir or DEFAULT_TOKENS)
    if is_first:
        _make_default_tokens(folder, config)
    files = {
        TRAIN_NAME: Path(config.train_tokens or folder / TRAIN_NAME),
        VALID_NAME: Path(config.valid_tokens or folder / VALID_NAME),
    }
    if config.train_tokens or config.valid_tokens:
        folder = Path(config.save_ckp_path) / LINKS
    if is_first:
        for path in files.values():
            if not path.is_file():
                raise UsageError(
                    f"there is no token file {path}; `uv run python scripts/tokenize_documents.py --out {path.parent}` "
                    "makes train.dat and valid.dat from documents"
                )
            load_tokens(path)
        _check_tokenizer(files[TRAIN_NAME], Path(config.tokenizer_dir))
        if config.train_tokens or config.valid_tokens:
            _link(folder, files)
    return replace(config, data_dir=str(folder))


def _make_default_tokens(folder: Path, config: ModelTrainConfig) -> None:
    """Run the default of `scripts/tokenize_documents.py`, if `folder` is where that writes to and is empty."""
    flags = {DEFAULT_TOKENS: [], DEFAULT_TOKENS / "smoke": ["--smoke"]}.get(folder)
    if flags is not None and config.train_tokens is None and not (folder / TRAIN_NAME).exists():
        print(f"no {TRAIN_NAME} in {folder}: tokenizing documents first")
        tokenize(flags)


def _check_tokenizer(train_path: Path, tokenizer_dir: Path) -> None:
    """Refuse a tokenizer that is not the one of the tokens: the model could not write with it."""
    sidecar = read_sidecar(train_path)
    if sidecar is None or not tokenizer_dir.is_dir():
        return
    tokenizer = Tokenizer.from_directory(tokenizer_dir)
    if fingerprint(tokenizer.vocab, tokenizer.merges, tokenizer.special_tokens) != sidecar["tokenizer_sha256"]:
        raise UsageError(f"{train_path} was made by another tokenizer than the one in tokenizer_dir {tokenizer_dir}")


def _link(folder: Path, files: Mapping[str, Path]) -> None:
    """Let the names in `folder` lead to the files and their sidecars."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = {name: path.resolve() for name, path in files.items()}  # before any link is changed
    for name, target in targets.items():
        for link, file in ((folder / name, target), (sidecar_path(folder / name), sidecar_path(target))):
            link.unlink(missing_ok=True)
            if file.is_file():
                link.symlink_to(file)


def write_samples(config: ModelTrainConfig, result: TrainResult) -> list[str]:
    """Texts by the trained model, which also go to samples.txt beside the run's report.

    Returns:
        The texts; none where the tokenizer's folder is not there.
    """
    if not config.num_samples or not Path(config.tokenizer_dir).is_dir():
        return []
    model, tokenizer = load_trained(result.checkpoint_path, Path(config.tokenizer_dir), config.device)
    texts = generate_text(
        model,
        tokenizer,
        [config.prompt] * config.num_samples,
        config.sample_tokens,
        config.temperature,
        top_p=config.top_p,
        seed=config.seed,
    )
    with atomic_write(result.report_path.with_name("samples.txt"), "w") as file:
        file.write("".join(f"--- sample\n{text}\n" for text in texts))
    return texts
