"""The training API's data: what is allowed, what is refused and how, and when two configurations are the same."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cs336_scaling.schemas.canonical import canonical_hash
from cs336_scaling.schemas.edition_2025 import TRAIN_FLOPS, LossQuery, OutOfRangeError
from cs336_scaling.schemas.edition_2026 import (
    AdamWConfig,
    ArchitectureConfig,
    FinalSubmissionRequest,
    SGDConfig,
    TrainingConfig,
)

from .training_configs import adamw, architecture, schedule, training_config

QUERY = {
    "d_model": 512, "num_layers": 8, "num_heads": 8, "batch_size": 128, "learning_rate": 1e-3, "train_flops": 10**16,
}  # fmt: skip


def _messages(model, values):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return " | ".join(problem["msg"] for problem in caught.value.errors())


def test_2025_train_flops_are_one_three_and_six_of_each_power_of_ten():
    text = "1e13 3e13 6e13 1e14 3e14 6e14 1e15 3e15 6e15 1e16 3e16 6e16 1e17 3e17 6e17 1e18"
    assert [float(flops) for flops in TRAIN_FLOPS] == [float(word) for word in text.split()]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("d_model", 9999, "d_model must be in range [64, 1024], got 9999"),
        ("d_model", 63, "d_model must be in range [64, 1024], got 63"),
        ("num_layers", 1, "num_layers must be in range [2, 24], got 1"),
        ("num_layers", 25, "num_layers must be in range [2, 24], got 25"),
        ("num_heads", 17, "num_heads must be in range [2, 16], got 17"),
        ("learning_rate", 0.01, "learning_rate must be in range [0.0001, 0.001], got 0.01"),
        ("learning_rate", math.nan, "learning_rate must be in range [0.0001, 0.001], got nan"),
        ("batch_size", 64, "batch_size must be one of [128, 256], got 64"),
    ],
)
def test_2025_values_out_of_range_are_named(name, value, message):
    with pytest.raises(OutOfRangeError) as caught:
        LossQuery.model_validate({**QUERY, name: value}).check_ranges()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "value"), [("d_model", 64), ("d_model", 1024), ("learning_rate", 1e-4), ("train_flops", 10**18)]
)
def test_2025_ends_of_ranges_are_allowed(name, value):
    query = LossQuery.model_validate({**QUERY, name: value})
    assert query.check_ranges() is query


def test_2025_flops_as_a_float_in_text_are_the_same_whole_number():
    for text in ("1e16", "1e+16", "10000000000000000", "10000000000000000.0", 1e16):
        assert LossQuery.model_validate({**QUERY, "train_flops": text}).train_flops == 10**16
    with pytest.raises(ValidationError):
        LossQuery.model_validate({**QUERY, "d_model": "64.5"})


def test_2025_tokens_follow_from_six_n_d():
    query = LossQuery.model_validate(QUERY)
    assert query.num_parameters == 12 * 8 * 512**2
    assert 6 * query.num_parameters * query.num_tokens == pytest.approx(1e16)


def test_a_submission_with_every_documented_key_is_accepted_and_survives_json():
    config = TrainingConfig.model_validate(training_config())
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config
    assert config.num_steps == 1000


def test_parameters_are_those_of_a_built_model():
    from cs336_basics.model import BasicsTransformerLM

    for tied in (False, True):
        shape = ArchitectureConfig.model_validate(
            architecture(head_dim=8, hidden_size=32, num_attention_heads=4, num_key_value_heads=4,
                         intermediate_size=48, num_hidden_layers=3, vocab_size=300, tie_word_embeddings=tied)
        )  # fmt: skip
        model = BasicsTransformerLM(300, 16, 32, 3, 4, 48, 1e4, tie_embeddings=tied)
        assert shape.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 513}, "8 * 64 = 512, got 513"),
        ({"num_key_value_heads": 3}, "must be divisible by num_key_value_heads, got 8 and 3"),
        ({"num_key_value_heads": 4}, "num_key_value_heads must equal num_attention_heads"),
        ({"head_dim": 63, "hidden_size": 504}, "head_dim must be even, got 63"),
        ({"intermediate_size": 511}, "intermediate_size must be at least hidden_size 512, got 511"),
        ({"dtype": "float16"}, "'float32' or 'bfloat16'"),
        ({"vocab_size": 0}, "greater than or equal to 256"),
        ({"vocab_size": "32000"}, "valid integer"),
        ({"hidden_size": 512.5}, "valid integer"),
        ({"attention_bias": 1}, "valid boolean"),
        ({"rope_theta": math.inf}, "finite number"),
        ({"rms_norm_eps": math.nan}, "finite number"),
        ({"rms_norm_eps": 0}, "greater than or equal to 0.000000000001"),
        ({"qk_norm": True}, "Extra inputs are not permitted"),
    ],
)
def test_architectures_that_do_not_fit_are_refused(change, message):
    assert message in _messages(ArchitectureConfig, architecture(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"total_train_tokens": 512 * 64 * 1000 + 512}, "divisible by 512 * train_batch_size = 32768"),
        ({"n_evals": 7}, "the number of steps, 1000, must be divisible by n_evals, got 7"),
        ({"max_runtime_seconds": 43_201}, "less than or equal to 43200"),
        ({"max_runtime_seconds": 0.5}, "greater than or equal to 1"),
        ({"train_batch_size": 0}, "greater than or equal to 1"),
        ({"model_seed": -1}, "greater than or equal to 0"),
        ({"model_seed": True}, "valid integer"),
        ({"comment": "mine"}, "Extra inputs are not permitted"),
        ({"optimizer_config": adamw(beta1=1)}, "less than 1"),
        ({"optimizer_config": adamw(nesterov=True)}, "Extra inputs are not permitted"),
        ({"optimizer_config": adamw(lr_scheduler=schedule(warmup_frac=1.5))}, "less than or equal to 1"),
        ({"optimizer_config": adamw(lr_scheduler=schedule(peak_value=0))}, "greater than or equal to"),
        ({"optimizer_config": adamw(lr_scheduler=schedule(init_value=0.1))}, "init_value must be at most peak_value"),
        ({"optimizer_config": adamw(grad_clip_norm=0)}, "greater than 0"),
        ({"optimizer_config": {**adamw(), "type": "lion"}}, "optimizer_config.type must be adamw or sgd"),
    ],
)
def test_submissions_that_do_not_fit_are_refused(change, message):
    assert message in _messages(TrainingConfig, training_config(**change))


def test_the_optimizer_is_told_by_its_type_or_its_keys():
    sgd = {"lr_scheduler": schedule(), "momentum": 0.9}
    for optimizer, expected in [
        (adamw(), AdamWConfig),
        ({**adamw(), "type": "adamw"}, AdamWConfig),
        (sgd, SGDConfig),
        ({"lr_scheduler": schedule(), "type": "sgd"}, SGDConfig),
    ]:
        assert (
            type(TrainingConfig.model_validate(training_config(optimizer_config=optimizer)).optimizer_config)
            is expected
        )


def test_a_final_submission_may_take_the_target_time_and_needs_a_positive_loss():
    target = training_config(max_runtime_seconds=172_800)
    FinalSubmissionRequest.model_validate({"training_config": target, "predicted_final_loss": 2.5})
    for loss in (0, -1, math.nan, math.inf, "2.5"):
        with pytest.raises(ValidationError):
            FinalSubmissionRequest.model_validate({"training_config": target, "predicted_final_loss": loss})


def test_configurations_are_the_same_whatever_their_spelling():
    spelled_out = TrainingConfig.model_validate(training_config())
    reversed_keys = TrainingConfig.model_validate_json(json.dumps(dict(reversed(training_config().items()))))
    numbers = TrainingConfig.model_validate(
        training_config(max_runtime_seconds=600.0, architecture_config=architecture(rope_theta=10_000.0))
    )
    defaults = training_config(architecture_config={
        name: value for name, value in architecture().items() if name not in ("attention_bias", "dtype", "rope_theta")
    })  # fmt: skip
    left_out = TrainingConfig.model_validate(defaults)
    assert len({canonical_hash(config) for config in (spelled_out, reversed_keys, numbers, left_out)}) == 1


@pytest.mark.parametrize(
    "change", [{"model_seed": 1}, {"max_runtime_seconds": 601}, {"optimizer_config": adamw(weight_decay=0.2)}]
)
def test_any_other_value_makes_another_configuration(change):
    same, other = (TrainingConfig.model_validate(training_config(**values)) for values in ({}, change))
    assert canonical_hash(same) != canonical_hash(other)


@given(
    heads=st.integers(1, 32), half_head_dim=st.integers(8, 64), extra=st.integers(0, 1000), batch=st.integers(1, 256),
    evals=st.integers(1, 20), steps_per_eval=st.integers(1, 50), off_by=st.integers(-511, 511),
)  # fmt: skip
@settings(deadline=None, derandomize=True, max_examples=60)
def test_exactly_the_configurations_that_add_up_are_accepted(
    heads, half_head_dim, extra, batch, evals, steps_per_eval, off_by
):
    width = heads * 2 * half_head_dim
    tokens = 512 * batch * evals * steps_per_eval
    body = training_config(
        architecture_config=architecture(
            head_dim=2 * half_head_dim, hidden_size=width, intermediate_size=width + extra,
            num_attention_heads=heads, num_key_value_heads=heads,
        ),
        train_batch_size=batch, n_evals=evals, total_train_tokens=tokens,
    )  # fmt: skip
    assert TrainingConfig.model_validate(body).num_steps == evals * steps_per_eval
    if off_by and tokens + off_by >= 512:
        with pytest.raises(ValidationError):
            TrainingConfig.model_validate({**body, "total_train_tokens": tokens + off_by})
