"""Configurations of the training API that several tests submit."""

from typing import Any


def architecture(**changes: Any) -> dict[str, Any]:
    """An `architecture_config` with every key of the API."""
    return {
        "attention_bias": False,
        "head_dim": 64,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_attention_heads": 8,
        "num_hidden_layers": 8,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "vocab_size": 32_000,
        **changes,
    }


def schedule(**changes: Any) -> dict[str, Any]:
    """An `lr_scheduler` with every key of the API."""
    return {"peak_value": 1e-3, "final_lr_frac": 0.1, "warmup_frac": 0.05, "init_value": 0.0, **changes}


def adamw(**changes: Any) -> dict[str, Any]:
    """An `optimizer_config` with every key of the API."""
    return {
        "lr_scheduler": schedule(),
        "weight_decay": 0.1,
        "beta1": 0.9,
        "beta2": 0.95,
        "eps": 1e-8,
        "eps_root": 0.0,
        "grad_clip_norm": 1.0,
        **changes,
    }


def training_config(**changes: Any) -> dict[str, Any]:
    """The body of `POST /submit`, every key given; simulated, it takes about a minute."""
    return {
        "architecture_config": architecture(),
        "optimizer_config": adamw(),
        "train_batch_size": 64,
        "val_batch_size": 64,
        "n_evals": 10,
        "total_train_tokens": 512 * 64 * 1000,
        "max_runtime_seconds": 600,
        "model_seed": 0,
        **changes,
    }


def tiny_config(**changes: Any) -> dict[str, Any]:
    """What a CPU really trains at hundreds of steps per second: one sequence of 512 tokens per step."""
    shape = {"head_dim": 8, "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
    tiny = {
        "architecture_config": architecture(
            **shape, intermediate_size=32, num_hidden_layers=1, vocab_size=300, dtype="float32"
        ),
        "train_batch_size": 1,
        "n_evals": 4,
        "total_train_tokens": 512 * 40,
    }
    return training_config(**(tiny | changes))
