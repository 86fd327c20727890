"""The settings of training: flags, ranges, and what a resumed run takes from its checkpoint."""

from dataclasses import fields

import pytest

from cs336_basics.command_line import UsageError
from cs336_basics.training_config import TrainConfig, build_parser, resumed_config

CONTRACT_FLAGS = """
    d_model num_layers num_heads d_ff context_len batch_size train_steps max_lr min_lr warm_up_it weight_decay
    clip_grad_norm val_interval save_intervals log_intervals save_ckp_path resume_ckp device wandb_project
    wandb_run_name no_wandb data_dir
"""


def test_every_flag_of_the_contract_is_there_and_every_field_has_a_flag():
    text = " ".join(build_parser().format_help().split())
    names = [spec.name for spec in fields(TrainConfig)]
    assert set(CONTRACT_FLAGS.split()) <= set(names)
    for name in names:
        assert f"--{name} " in text.replace("]", " ")
    assert text.count("(default: ") == len(names)


def test_only_what_was_given_is_there():
    given = vars(build_parser().parse_args(["--d_model", "64", "--no_wandb", "--max_lr", "3e-4"]))
    assert given == {"d_model": 64, "no_wandb": True, "max_lr": 3e-4}


def test_defaults_that_depend_on_others():
    config = TrainConfig(max_lr=0.02, train_steps=300)
    assert (config.min_lr, config.warm_up_it) == (0.002, 15)
    assert config.model_config(123).vocab_size == 123
    assert TrainConfig(vocab_size=77).model_config(123).vocab_size == 77
    assert (TrainConfig().num_layers, TrainConfig().d_model) == (4, 512)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"train_steps": -5}, "train_steps is -5"),
        ({"max_lr": float("nan")}, "max_lr is nan"),
        ({"max_lr": -1.0}, "max_lr is -1.0"),
        ({"min_lr": 1.0}, "min_lr 1.0 is above max_lr 0.001"),
        ({"beta2": 1.0}, "beta2 is 1.0.*below 1"),
        ({"dtype": "float8"}, "dtype is 'float8'; allowed are float32, bfloat16"),
        ({"norm": "layer"}, "norm is 'layer'; allowed are pre, post, none"),
        ({"batch_size": 10, "gradient_accumulation_steps": 4}, "batch_size 10 cannot be split"),
        ({"d_model": 100, "num_heads": 16}, "d_model 100 is not a multiple of num_heads 16"),
        ({"max_minutes": 0.0}, "max_minutes is 0.0"),
        ({"batch_size": 2.5}, "batch_size is 2.5; it must be of type int"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"clip_grad_norm": float("inf")}, "clip_grad_norm is inf"),
        ({"seed": -1}, "seed is -1; allowed .* at least 0 and below 9223372036854775808"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
    ],
)
def test_bad_values_are_named(setting, named):
    with pytest.raises(UsageError, match=named):
        TrainConfig(**setting)


def test_unknown_flags_and_words_exit_with_2(capsys):
    for argv in (["--d_modle", "3"], ["--d_model", "wide"], ["--norm", "layer"]):
        with pytest.raises(SystemExit) as leaving:
            build_parser().parse_args(argv)
        assert leaving.value.code == 2
        assert argv[0] in capsys.readouterr().err


def _stored(**settings):
    config = TrainConfig(vocab_size=50, d_model=32, num_heads=4, max_lr=0.5, batch_size=4, **settings)
    return config.to_dict(), config.model_config(50).to_dict()


def test_a_resumed_run_has_the_stored_settings_unless_given_anew():
    config = resumed_config(*_stored(), given={"resume_ckp": "x.pt", "train_steps": 9})
    assert (config.d_model, config.max_lr, config.batch_size) == (32, 0.5, 4)
    assert (config.train_steps, config.resume_ckp) == (9, "x.pt")


def test_a_project_given_anew_ends_a_stored_no_wandb():
    stored = _stored(no_wandb=True)
    assert resumed_config(*stored, given={}).no_wandb
    assert not resumed_config(*stored, given={"wandb_project": "p"}).no_wandb
    assert resumed_config(*stored, given={"wandb_project": "p", "no_wandb": True}).no_wandb


def test_a_resumed_run_cannot_change_its_model():
    same = resumed_config(*_stored(), given={"d_model": 32})
    assert same.d_model == 32
    with pytest.raises(
        UsageError, match=r"d_model 64 \(the checkpoint has 32\).*qk_norm True \(the checkpoint has False\)"
    ):
        resumed_config(*_stored(), given={"d_model": 64, "qk_norm": True})
    with pytest.raises(UsageError, match=r"vocab_size 60 \(the checkpoint has 50\)"):
        resumed_config(*_stored(), given={"vocab_size": 60})
    with pytest.raises(UsageError, match=r"context_len 512 \(the checkpoint has 256\)"):
        resumed_config(*_stored(), given={"context_len": 512})
