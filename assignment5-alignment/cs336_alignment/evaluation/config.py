"""The settings of the programs that ask a model and judge its answers."""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from cs336_alignment.evaluation.engines import EngineChoice
from cs336_alignment.rollouts.factory import ENGINES
from cs336_alignment.training.config import DEFAULT_MODEL, SMOKE_MODEL
from cs336_basics.command_line import UsageError
from cs336_basics.settings import Settings, setting

NO_JUDGE = "none"
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class AskingConfig(Settings):
    """What both programs ask for; each field's help text is its documentation.

    Attributes:
        SMOKE: what `--smoke` sets, unless given explicitly.

    Raises:
        UsageError: a value is out of range.
    """

    SMOKE: ClassVar[Mapping[str, Any]] = {
        "model": SMOKE_MODEL, "judge_model": SMOKE_MODEL, "max_tokens": 24, "judge_max_tokens": 16,
    }  # fmt: skip

    model: str = setting(
        DEFAULT_MODEL,
        "the model to ask: a Hugging Face folder or name, or a small model made here: `default`, or "
        "`default-sft`, the same fine-tuned",
    )
    engine: str = setting("hf", "what runs it; vllm needs the extra of that name", choices=ENGINES)
    device: str = setting("auto", "where it runs: auto, cuda, cuda:N, mps or cpu")
    dtype: str = setting("float32", "type of the weights", choices=DTYPES)
    generation_batch_size: int = setting(64, "responses that the hf engine samples at once")
    server_url: str = setting("http://localhost:8000", "address of the server of the engine vllm-server")
    tensor_parallel: int = setting(1, "GPUs that the engine vllm spreads a model over")
    gpu_memory_utilization: float | None = setting(
        None, "share of its device's memory that vllm takes, for the judge as well", type=float,
        shown="0.85 of a GPU's, 0.2 of main memory",
    )  # fmt: skip
    max_model_len: int | None = setting(
        None, "most tokens of prompt and response under vLLM", type=int, shown="the model's context"
    )

    wrapper: str | None = setting(
        None, "what stands around the prompt: a template's name or file, chat (the model's chat template), or none",
        type=str, shown="what goes with the prompt",
    )  # fmt: skip
    max_tokens: int | None = setting(None, "tokens a response has at most", type=int, shown="what the task needs")
    top_p: float = setting(1.0, "share of the probability to draw from (nucleus sampling)")
    seed: int = setting(0, "seed of the sampling")

    max_examples: int | None = setting(None, "take only so many, evenly spread over the file", type=int, shown="all")
    chunk_size: int = setting(64, "examples between two savings; a killed run goes on after the last one")
    out: str | None = setting(
        None, "folder for the results; the same command goes on with what is there", type=str,
        shown="runs/, the program, and a checksum of what determines the results",
    )  # fmt: skip
    overwrite: bool = setting(False, "drop what is in the folder instead of going on with it")
    show: int = setting(1, "examples of each kind to print; the report has five times as many")

    judge_model: str = setting(
        DEFAULT_MODEL, "the model that judges, or `none`; the small default shows how it goes but cannot judge"
    )
    judge_engine: str = setting("hf", "what runs the judge", choices=ENGINES)
    judge_device: str = setting("auto", "where the judge runs")
    judge_dtype: str = setting("float32", "type of the judge's weights", choices=DTYPES)
    judge_server_url: str = setting("http://localhost:8000", "address of the judge's server")
    judge_tensor_parallel: int = setting(1, "GPUs that the engine vllm spreads the judge over")
    judge_max_model_len: int | None = setting(
        None, "most tokens of prompt and judgment under vLLM", type=int, shown="the judge's context"
    )
    judge_prompt: str | None = setting(
        None, "the judge's prompt: a template's name or file", type=str, shown="judge_pairwise or judge_safety"
    )
    judge_max_tokens: int = setting(256, "most tokens of a judgment")

    smoke: bool = setting(False, "a tiny run, to see that everything works")
    quiet: bool = setting(False, "no progress bars")

    def __post_init__(self) -> None:
        self.check_types()
        for name in (
            "generation_batch_size",
            "tensor_parallel",
            "chunk_size",
            "judge_tensor_parallel",
            "judge_max_tokens",
        ):
            self.check_range(name, 1, math.inf)
        if self.gpu_memory_utilization is not None and not 0 < self.gpu_memory_utilization <= 1:
            raise UsageError(
                f"gpu_memory_utilization is {self.gpu_memory_utilization}; allowed are numbers above 0, up to 1"
            )
        self.check_range("show", 0, math.inf)
        self.check_range("seed", 0, 2**63, below=True)
        for name in ("max_examples", "max_tokens", "max_model_len", "judge_max_model_len"):
            if getattr(self, name) is not None:
                self.check_range(name, 1, math.inf)

    @property
    def asked(self) -> EngineChoice:
        """The model to ask."""
        return EngineChoice(
            self.model, self.engine, self.device, self.dtype, self.generation_batch_size, self.server_url,
            self.tensor_parallel, self.max_model_len, self.gpu_memory_utilization,
        )  # fmt: skip

    @property
    def judge(self) -> EngineChoice:
        """The model that judges."""
        return EngineChoice(
            self.judge_model, self.judge_engine, self.judge_device, self.judge_dtype, self.generation_batch_size,
            self.judge_server_url, self.judge_tensor_parallel, self.judge_max_model_len, self.gpu_memory_utilization,
        )  # fmt: skip

    def folder(self, name: str, checksum: str) -> Path:
        """The folder for the results."""
        return Path(self.out or Path("runs") / f"{name}_{checksum[:8]}")


@dataclass(frozen=True)
class EvaluationConfig(AskingConfig):
    """Settings of an evaluation."""

    SMOKE: ClassVar[Mapping[str, Any]] = {**AskingConfig.SMOKE, "max_examples": 4}

    task: str = setting(
        "default", "the benchmark: math, gsm8k, mmlu, alpaca_eval, simple_safety_tests, countdown, arithmetic (default)"
    )
    data: str | None = setting(
        None, "its file (MMLU: folder), as published", type=str, shown="a few examples of our own in that format"
    )
    split: str = setting("test", "of MMLU's files", choices=("test", "val", "dev"))
    shots: int = setting(0, "worked examples before each of MMLU's questions, from its dev split")
    prompt: str | None = setting(None, "the prompt template: a name or a file", type=str, shown="the task's own")
    answer_format: str | None = setting(
        None, "where a response has its answer: r1_zero (in tags), boxed, last_number or option_letter",
        type=str, shown="what goes with the prompt",
    )  # fmt: skip
    temperature: float | None = setting(
        None, "of the sampling; 0 takes the likeliest token", type=float, shown="what is usual for the task"
    )
    min_tokens: int = setting(0, "tokens a response has at least")
    num_samples: int | None = setting(None, "responses to each example", type=int, shown="the largest k of --pass_at")
    pass_at: str = setting("1", "the k of pass@k, such as 1,4,16")
    generator: str | None = setting(
        None, "what AlpacaEval's files call the model", type=str, shown="the name of its folder"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_range("shots", 0, math.inf)
        if self.num_samples is None:
            object.__setattr__(self, "num_samples", max(self.pass_ks))
        for k in self.pass_ks:
            if k > self.num_samples:
                raise UsageError(
                    f"pass@{k} cannot be estimated from num_samples {self.num_samples}; at least {k} needed"
                )

    @property
    def pass_ks(self) -> list[int]:
        """The k of pass@k, in order."""
        parts = self.pass_at.split(",")
        if not all(part.strip().isascii() and part.strip().isdecimal() and int(part) for part in parts):
            raise UsageError(
                f"pass_at is {self.pass_at!r}; allowed are whole numbers from 1 with commas, such as 1,4,16"
            )
        return sorted(set(map(int, parts)))


@dataclass(frozen=True)
class RedTeamConfig(AskingConfig):
    """Settings of a red-teaming run."""

    SMOKE: ClassVar[Mapping[str, Any]] = {
        **AskingConfig.SMOKE, "max_examples": 2, "num_samples": 1, "attacks": "plain,role_play,base64",
    }  # fmt: skip

    data: str | None = setting(
        None, "requests to attack with: a CSV file as SimpleSafetyTests', or lines of text", type=str,
        shown="a few mild ones of our own",
    )  # fmt: skip
    attacks: str = setting("all", "names of attacks with commas")
    attack_file: str | None = setting(
        None, "attacks of one's own, a TOML file", type=str, shown="evaluation/attacks.toml of the package"
    )
    num_samples: int = setting(2, "attempts with each request and attack")
    temperature: float = setting(0.7, "of the sampling; 0 takes the likeliest token")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_range("num_samples", 1, math.inf)


Config = TypeVar("Config", bound=AskingConfig)


def parse_config(config_class: type[Config], argv: Sequence[str] | None, program: str, description: str) -> Config:
    """The settings that a command line asks for; `--smoke` lowers those left out.

    Raises:
        UsageError: a setting is out of range.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, argument_default=argparse.SUPPRESS, allow_abbrev=False
    )
    config_class.add_flags(parser)
    given = vars(parser.parse_args(argv))
    return config_class(**{**(config_class.SMOKE if given.get("smoke") else {}), **given})
