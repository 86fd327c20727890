"""Making what an online run consists of, in each of its processes."""

from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from cs336_alignment.online.collection import Collector, ResponseScores
from cs336_alignment.online.config import OnlineConfig
from cs336_alignment.online.reward_functions import reward_function
from cs336_alignment.online.rollout_config import RolloutConfig
from cs336_alignment.parallel.config import ParallelConfig
from cs336_alignment.parallel.replica import REPLICAS
from cs336_alignment.policy import load_tokenizer, load_trainable_policy
from cs336_alignment.reward_model.model import load_reward_model
from cs336_alignment.reward_model.score import score_responses
from cs336_alignment.rollouts import RolloutEngine
from cs336_alignment.rollouts.factory import make_engine
from cs336_alignment.training.replica import Replica
from cs336_systems.fsdp import FSDP

_SAMPLES_IN_EVERY_PROCESS = "hf"


def make_replica(config: ParallelConfig) -> Replica:
    """The policy, as this process holds it."""
    return REPLICAS[config.parallel](load_trainable_policy(config), config)


def make_collector(config: RolloutConfig, replica: Replica, tokenizer: PreTrainedTokenizerBase) -> Collector:
    """What samples and scores.

    The hf engine samples in every process a share of the questions. The vllm engines fill a GPU, or speak to a server,
    of their own: the first process runs them for all.
    """
    shared = config.engine == _SAMPLES_IN_EVERY_PROCESS
    engine = make_rollout_engine(config, replica, tokenizer) if shared or replica.rank == 0 else None
    return Collector(engine, replica, reward_function(config), shared)


def make_score(config: OnlineConfig) -> ResponseScores | None:
    """The reward model that the settings name, whole in every process; None if they name none."""
    if config.reward_model is None:
        return None
    model = load_reward_model(config.reward_model, config.device, config.dtype)
    return partial(score_responses, model, load_tokenizer(config.reward_model))


def make_rollout_engine(config: RolloutConfig, replica: Replica, tokenizer: PreTrainedTokenizerBase) -> RolloutEngine:
    """The engine that the settings ask for; a `Collector` gives it the newest weights before it samples."""
    if config.engine == "hf":
        is_whole = not isinstance(replica.wrapped, FSDP)
        own_device = "auto" if is_whole else replica.device
        return make_engine(
            "hf",
            model=config.model,
            policy=replica.policy if is_whole else None,
            tokenizer=tokenizer,
            device=config.rollout_device or own_device,
            dtype=config.dtype,
            autocast=torch.bfloat16 if config.autocast == "bfloat16" else None,
            max_batch_size=config.generation_batch_size,
        )
    if config.engine == "vllm":
        from cs336_alignment.rollouts.vllm_engine import VLLMOptions

        device = config.rollout_device or free_device(replica)
        half = config.autocast == "bfloat16" and torch.device(device).type == "cuda"
        dtype = "bfloat16" if half else config.dtype
        options = VLLMOptions(device=device, dtype=dtype, gpu_memory_utilization=config.gpu_memory_utilization)
        return make_engine("vllm", model=config.model, tokenizer=tokenizer, vllm=options)
    return make_engine("vllm-server", model=config.model, tokenizer=tokenizer, server_url=config.server_url)


def free_device(replica: Replica) -> str:
    """The first GPU of this machine on which no process trains; else the policy's device."""
    if replica.device.type != "cuda" or replica.world_size >= torch.cuda.device_count():
        return str(replica.device)
    return f"cuda:{replica.world_size}"
