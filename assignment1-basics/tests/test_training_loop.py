"""Training as a whole, on models small enough to train in a second: it learns, logs, saves, resumes and stops."""

import dataclasses
import json
import math
import subprocess
import sys
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch

from cs336_basics.bpe.vocab_files import fingerprint
from cs336_basics.check_pointing import read_checkpoint
from cs336_basics.command_line import UsageError, run_command
from cs336_basics.generate import generate_text
from cs336_basics.model import TransformerConfig
from cs336_basics.model.transformer import transformer_lm
from cs336_basics.run_log import read_metrics
from cs336_basics.tokenizer import Tokenizer
from cs336_basics.train import TrainConfig, config_from_arguments, main, measure_step_seconds, train
from cs336_basics.trainer.loop import require_writable
from cs336_basics.trainer.samples import PROMPTS, sample_texts
from cs336_basics.trainer.trainer import Trainer, decay_groups

VOCAB = 40
TINY = {"vocab_size": VOCAB, "d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 64, "context_len": 16}


def _sequence(length, start=0):
    """A text with a rule a small model can learn: each id is the last one plus 7, plus 1 at every 13th place."""
    places = np.arange(start, start + length)
    return (places * 7 + places // 13) % VOCAB


@pytest.fixture(autouse=True)
def _one_thread():
    """Models this small are slower on two threads, much slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    _sequence(4000).astype("uint16").tofile(folder / "train.dat")
    _sequence(700, start=9999).astype("uint16").tofile(folder / "valid.dat")
    return folder


@pytest.fixture
def make_config(tmp_path, data_dir):
    def make(name="run", **settings):
        defaults = {
            "data_dir": str(data_dir), "batch_size": 8, "train_steps": 30, "log_intervals": 5, "val_interval": 10,
            "val_batches": 2, "save_intervals": 10, "max_lr": 3e-3, "device": "cpu", "no_wandb": True,
            "run_dir": str(tmp_path / name), "save_ckp_path": str(tmp_path / name / "checkpoints"),
        }  # fmt: skip
        return TrainConfig(**{**defaults, **TINY, **settings})

    return make


def _run(config, **arguments):
    return train(config, progress=False, **arguments)


def _assert_same_run(first, second):
    """Two results of runs that ended in the same state, bit for bit, and logged the same numbers."""
    one, two = read_checkpoint(first.checkpoint_path), read_checkpoint(second.checkpoint_path)
    for name, tensor in one["model_state_dict"].items():
        assert torch.equal(tensor, two["model_state_dict"][name]), name
    states = one["optimizer_state_dict"]["state"], two["optimizer_state_dict"]["state"]
    assert states[0].keys() == states[1].keys()
    for index, state in states[0].items():
        assert state["step"] == states[1][index]["step"]
        assert torch.equal(state["exp_avg"], states[1][index]["exp_avg"])
        assert torch.equal(state["exp_avg_sq"], states[1][index]["exp_avg_sq"])
    assert torch.equal(one["random_state"]["torch"], two["random_state"]["torch"])
    assert one["random_state"]["python"] == two["random_state"]["python"]
    for key in ("iteration", "data_state", "tokens_seen", "validations"):
        assert one[key] == two[key], key
    exact = ("step", "tokens", "train_loss", "val_loss", "lr", "grad_norm")
    logs = [[{k: e[k] for k in exact if k in e} for e in read_metrics(r.metrics_path)] for r in (first, second)]
    assert logs[0] == logs[1]


def test_a_run_learns_and_leaves_everything_it_promises(make_config, tmp_path):
    seen = []
    result = _run(make_config(train_steps=120, save_intervals=50), on_step=seen.append)
    assert (result.ending, result.steps, result.tokens) == ("finished", 120, 120 * 8 * 16)
    assert result.final_val_loss < 1.0 < math.log(VOCAB) - 1
    assert result.best_val_loss <= result.final_val_loss
    assert [entry["step"] for entry in seen] == list(range(1, 121))

    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["checkpoint_100.pt", "checkpoint_50.pt", "checkpoint_final.pt"]
    assert result.checkpoint_path.name == "checkpoint_final.pt"
    assert "model_state_dict" in torch.load(result.checkpoint_path)  # weights_only by default

    entries = read_metrics(result.metrics_path)
    assert [entry["step"] for entry in entries] == [0, *range(5, 121, 5)]
    for entry in entries:
        assert entry["tokens"] == entry["step"] * 8 * 16
        assert ("val_loss" in entry) == (entry["step"] % 10 == 0)
        assert ("train_loss" in entry) == (entry["step"] > 0)
    assert entries[0]["val_loss"] == pytest.approx(math.log(VOCAB), abs=0.5)
    assert entries[-1]["val_loss"] == result.final_val_loss
    assert all(entry["tokens_per_second"] > 0 and 0 < entry["mfu"] < 1.5 for entry in entries[1:])
    assert entries[-1]["lr"] == pytest.approx(3e-4)
    assert [e["seconds"] for e in entries] == sorted(e["seconds"] for e in entries)

    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["train_config"]["max_lr"] == 3e-3
    assert saved["model_config"]["d_model"] == 32
    assert saved["machine"]["torch"] == torch.__version__
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    html = result.report_path.read_text(encoding="utf-8")
    assert f"{result.final_val_loss:.4g}" in html
    assert "data:image/png;base64," in html


def test_a_tiny_batch_is_learned_by_heart(make_config, data_dir):
    np.random.default_rng(0).integers(VOCAB, size=17).astype("uint16").tofile(data_dir / "train.dat")
    result = _run(make_config(train_steps=150, max_lr=1e-2, batch_size=1, weight_decay=0.0))
    assert read_metrics(result.metrics_path)[-1]["train_loss"] < 0.01


def test_the_same_seed_gives_the_same_run_and_another_seed_another(make_config):
    first, again, other = (_run(make_config(name, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    _assert_same_run(first, again)
    assert first.final_val_loss != other.final_val_loss


@pytest.mark.parametrize("settings", [{}, {"clip_grad_norm": 0.0}])
def test_gradient_accumulation_equals_the_whole_batch(make_config, settings):
    whole = _run(make_config("whole", train_steps=10, **settings))
    parts = _run(make_config("parts", train_steps=10, gradient_accumulation_steps=4, **settings))
    one, two = (read_checkpoint(result.checkpoint_path) for result in (whole, parts))
    assert one["data_state"] == two["data_state"]
    for name, tensor in one["model_state_dict"].items():
        torch.testing.assert_close(tensor, two["model_state_dict"][name], rtol=1e-3, atol=1e-4)
    for a, b in zip(read_metrics(whole.metrics_path), read_metrics(parts.metrics_path), strict=True):
        assert a.get("train_loss", 0) == pytest.approx(b.get("train_loss", 0), rel=1e-4)
        assert a.get("grad_norm", 0) == pytest.approx(b.get("grad_norm", 0), rel=1e-3)


def test_the_step_is_that_of_a_loop_written_with_torch(make_config):
    """Three steps against torch's own loss, clipping, AdamW and scheduler on the same batches."""
    config = make_config(train_steps=20, warm_up_it=2, clip_grad_norm=0.5, weight_decay=0.3)
    tokens = _sequence(500)
    trainer = Trainer(config, config.model_config(VOCAB), tokens, tokens)
    reference = Trainer(config, config.model_config(VOCAB), tokens, tokens).model
    optimizer = torch.optim.AdamW(decay_groups(reference, 0.3), lr=1.0, betas=(0.9, 0.95))
    starts = np.random.default_rng(config.seed)
    for lr in (1.5e-3, 3e-3, 3e-4 + 0.5 * (1 + math.cos(math.pi / 18)) * 2.7e-3):
        windows = np.stack([tokens[start : start + 17] for start in starts.integers(len(tokens) - 16, size=8)])
        windows = torch.from_numpy(windows).long()
        logits = reference(windows[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        outcome = trainer.train_step()
        assert outcome.lr == pytest.approx(lr)
        torch.testing.assert_close(outcome.loss, loss)
        torch.testing.assert_close(outcome.gradient_norm, norm)
    for mine, theirs in zip(trainer.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_gains_of_norms_do_not_decay():
    trainer = Trainer(TrainConfig(**TINY, device="cpu"), TrainConfig(**TINY).model_config(0), *[_sequence(99)] * 2)
    decaying, steady = trainer.optimizer.param_groups
    assert {parameter.ndim for parameter in decaying["params"]} == {2}
    assert {parameter.ndim for parameter in steady["params"]} == {1}
    assert (decaying["weight_decay"], steady["weight_decay"]) == (0.1, 0.0)


@pytest.fixture(scope="module")
def byte_tokenizer():
    return Tokenizer({index: bytes([index]) for index in range(256)}, [], ["<|endoftext|>"])


def test_the_final_checkpoint_loads_into_transformer_lm_and_writes_text(make_config, data_dir, byte_tokenizer):
    text = np.array(byte_tokenizer.encode("Once upon a time there was a cat. " * 30))
    for name in ("train", "valid"):
        text.astype("uint16").tofile(data_dir / f"{name}.dat")
    result = _run(make_config(train_steps=150, vocab_size=257, context_len=32, max_lr=1e-2, val_interval=150))
    shape = {"vocab_size": 257, "context_len": 32, "d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 64}
    model = transformer_lm(**shape)
    model.load_state_dict(torch.load(result.checkpoint_path)["model_state_dict"])
    written = generate_text(model, byte_tokenizer, "Once upon", max_length=25, temperature=0.0)
    assert written == "Once upon a time there was a cat. "


def test_samples_need_the_tokenizer_that_made_the_data(make_config, tmp_path, byte_tokenizer):
    config = make_config(vocab_size=300, tokenizer_dir=str(tmp_path / "tokenizer"))
    model = transformer_lm(300, 16, 32, 1, 2)
    assert sample_texts(model, config, None) == []
    byte_tokenizer.save(tmp_path / "tokenizer")
    made_by = fingerprint(byte_tokenizer.vocab, byte_tokenizer.merges, byte_tokenizer.special_tokens)
    texts = sample_texts(model, config, made_by)
    assert [text.startswith(prompt) for text, prompt in zip(texts, PROMPTS, strict=True)] == [True] * len(PROMPTS)
    assert sample_texts(model, config, None) == texts
    assert sample_texts(model, config, "of another tokenizer") == []


@pytest.mark.parametrize("cut", [10, 20])
@pytest.mark.parametrize(
    "settings", [{}, {"gradient_accumulation_steps": 2, "dtype": "bfloat16", "tie_embeddings": True}]
)
def test_a_resumed_run_is_the_run_that_never_stopped(make_config, tmp_path, cut, settings):
    whole = _run(make_config("whole", **settings))
    path = tmp_path / "whole" / "checkpoints" / f"checkpoint_{cut}.pt"
    resumed = config_from_arguments(
        ["--resume_ckp", str(path), "--run_dir", str(tmp_path / "b"), "--save_ckp_path", str(tmp_path / "b")]
    )
    (tmp_path / "b").mkdir()
    # The log as the killed process left it: entries past the checkpoint, and a line that was never finished.
    log = whole.metrics_path.read_text()
    (tmp_path / "b" / "metrics.jsonl").write_text(log + '{"step": 35, "sec')
    torch.manual_seed(12345)  # the new process's random state must not matter
    second = _run(resumed)
    _assert_same_run(whole, second)
    assert second.seconds > read_checkpoint(path)["seconds"]


@pytest.mark.slow
def test_a_compiled_run_resumes_exactly_too(make_config, tmp_path):
    """Its last validation batch is smaller than the others, and a fresh run sees it before its first step."""
    settings = {"compile": True, "num_layers": 1, "gradient_accumulation_steps": 2, "val_batches": 11}
    whole = _run(make_config("whole", train_steps=6, save_intervals=3, val_interval=3, log_intervals=1, **settings))
    torch.compiler.reset()  # a new process has compiled nothing yet
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "metrics.jsonl").write_text(whole.metrics_path.read_text())
    path, other = tmp_path / "whole" / "checkpoints" / "checkpoint_3.pt", str(tmp_path / "b")
    second = _run(config_from_arguments(["--resume_ckp", str(path), "--run_dir", other, "--save_ckp_path", other]))
    _assert_same_run(whole, second)


def test_a_longer_run_goes_on_from_the_final_checkpoint(make_config):
    first = _run(make_config())
    config = config_from_arguments(["--resume_ckp", str(first.checkpoint_path), "--train_steps", "40"])
    second = _run(config)
    assert (second.steps, second.tokens) == (40, 40 * 8 * 16)
    assert [entry["step"] for entry in read_metrics(second.metrics_path)] == [0, *range(5, 41, 5)]
    finished = _run(config_from_arguments(["--resume_ckp", str(second.checkpoint_path)]))
    assert (finished.ending, finished.steps) == ("finished", 40)
    assert finished.final_val_loss == second.final_val_loss


def test_latest_passes_over_a_truncated_checkpoint_and_says_so(make_config, tmp_path, capsys):
    whole = _run(make_config("whole"))
    folder = tmp_path / "whole" / "checkpoints"
    for name in ("checkpoint_30.pt", "checkpoint_final.pt"):
        (folder / name).write_bytes((folder / name).read_bytes()[:5000])
    config = config_from_arguments(["--resume_ckp", "latest", "--save_ckp_path", str(folder)])
    said = capsys.readouterr().err
    assert config.resume_ckp == str(folder / "checkpoint_20.pt")
    assert "checkpoint_final.pt is not a readable checkpoint" in said
    assert "going on from" in said
    resumed = _run(dataclasses.replace(make_config("whole"), resume_ckp="latest"))
    assert resumed.final_val_loss == whole.final_val_loss


def test_a_run_cannot_end_before_the_step_it_resumes_from(make_config):
    first = _run(make_config(train_steps=10))
    log = first.metrics_path.read_text()
    with pytest.raises(UsageError, match=r"train_steps is 9, but .*checkpoint_final\.pt has 10 steps behind it"):
        _run(config_from_arguments(["--resume_ckp", str(first.checkpoint_path), "--train_steps", "9"]))
    assert first.metrics_path.read_text() == log


@pytest.mark.parametrize("missing", ["seconds", "validations", "wandb_id", "numbered_checkpoints"])
def test_a_checkpoint_that_lacks_an_entry_is_refused_or_resumed_without_it(make_config, tmp_path, missing):
    first = _run(make_config(train_steps=10))
    checkpoint = torch.load(first.checkpoint_path)
    del checkpoint[missing]
    torch.save(checkpoint, tmp_path / "checkpoint_10.pt")
    config = make_config("b", resume_ckp=str(tmp_path / "checkpoint_10.pt"), train_steps=20)
    if missing == "seconds":
        with pytest.raises(UsageError, match=r"checkpoint_10\.pt cannot be resumed: it lacks seconds"):
            _run(config)
    else:
        assert _run(config).steps == 20


def test_another_model_cannot_take_over_a_checkpoint(make_config, tmp_path):
    first = _run(make_config(train_steps=1))
    with pytest.raises(UsageError, match=r"d_model 64 \(the checkpoint has 32\)"):
        _run(make_config(resume_ckp=str(first.checkpoint_path), d_model=64))
    with pytest.raises(UsageError, match="d_model 64"):
        config_from_arguments(["--resume_ckp", str(first.checkpoint_path), "--d_model", "64"])
    torch.save({"model_state_dict": {}}, tmp_path / "foreign.pt")
    with pytest.raises(UsageError, match="cannot be resumed"):
        config_from_arguments(["--resume_ckp", str(tmp_path / "foreign.pt")])
    with pytest.raises(UsageError, match="it lacks data_state, iteration"):
        _run(make_config(resume_ckp=str(tmp_path / "foreign.pt")))


def test_only_the_newest_checkpoints_are_kept(make_config, tmp_path):
    _run(make_config(save_intervals=5, keep_checkpoints=2))
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["checkpoint_25.pt", "checkpoint_30.pt", "checkpoint_final.pt"]
    folder = tmp_path / "run" / "checkpoints"
    _run(config_from_arguments(["--resume_ckp", str(folder / "checkpoint_30.pt"), "--train_steps", "40"]))
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["checkpoint_35.pt", "checkpoint_40.pt", "checkpoint_final.pt"]


def test_only_a_run_s_own_earlier_checkpoints_make_room_for_new_ones(make_config, tmp_path):
    """Neither those of a run that was here before nor those beyond the step resumed from."""
    _run(make_config(save_intervals=7))
    folder = tmp_path / "run" / "checkpoints"
    _run(make_config(save_intervals=10))
    (folder / ".checkpoint_20.pt.12345.tmp").write_bytes(b"left by a kill")
    flags = ["--resume_ckp", str(folder / "checkpoint_20.pt"), "--keep_checkpoints", "1"]
    _run(config_from_arguments([*flags, "--train_steps", "25", "--save_intervals", "5"]))
    others = [f"checkpoint_{step}.pt" for step in (14, 21, 28, 30, 7)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*others, "checkpoint_25.pt", "checkpoint_final.pt"]
    )


@pytest.mark.parametrize(
    "settings", [{"max_lr": 1e38, "warm_up_it": 0}, {"max_lr": 1e5, "norm": "none", "clip_grad_norm": 0.0}]
)
def test_a_diverging_run_stops_and_names_the_last_good_checkpoint(make_config, tmp_path, capsys, settings):
    good = _run(make_config("good", train_steps=10, norm=settings.get("norm", "pre")))
    config = make_config("bad", resume_ckp=str(good.checkpoint_path), save_intervals=1, val_interval=1000, **settings)
    result = _run(config)
    assert result.diverged
    assert result.steps < 30
    assert result.message.count(". ") == 0
    assert f"the last good checkpoint is {result.checkpoint_path}" in result.message
    html = unescape(result.report_path.read_text(encoding="utf-8"))
    assert "diverged" in html
    assert result.message in html
    for path in [result.checkpoint_path, *(tmp_path / "bad").rglob("*.pt")]:
        checkpoint = read_checkpoint(path)
        assert all(torch.isfinite(tensor).all() for tensor in checkpoint["model_state_dict"].values())


def test_a_loss_that_is_nan_exits_with_1(make_config, monkeypatch, capsys):
    def poisoned(self):
        with torch.no_grad():
            self.model.token_embeddings.weight[3] = torch.nan
        return train_step(self)

    train_step = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", lambda self: (poisoned if self.step == 4 else train_step)(self))
    config = make_config()
    flags = [word for name, value in config.to_dict().items() if isinstance(value, int | str) and value is not True
             and value is not False for word in (f"--{name}", str(value))]  # fmt: skip
    with pytest.raises(SystemExit) as leaving:
        run_command(main, flags)
    assert leaving.value.code == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("error: training diverged after 4 steps: the loss became nan at learning rate")
    assert "there is no checkpoint yet" in errors[-1]


def test_a_run_that_diverges_before_its_first_entry_says_so_in_its_report(make_config, monkeypatch):
    monkeypatch.setattr(Trainer, "evaluate", lambda self: math.nan)
    result = _run(make_config())
    html = unescape(result.report_path.read_text(encoding="utf-8"))
    assert read_metrics(result.metrics_path) == []
    assert "Ending" in html
    assert "training diverged after 0 steps: the validation loss became nan" in html


def test_a_time_limit_ends_the_run_with_a_checkpoint(make_config):
    result = _run(make_config(train_steps=100_000, max_minutes=0.01, warm_up_it=10))
    assert result.ending == "out of time"
    assert 0 < result.steps < 100_000
    assert result.checkpoint_path.name == "checkpoint_final.pt"
    assert read_checkpoint(result.checkpoint_path)["iteration"] == result.steps
    assert read_metrics(result.metrics_path)[-1]["step"] == result.steps

    again = _run(config_from_arguments(["--resume_ckp", str(result.checkpoint_path)]))
    assert (again.ending, again.steps, again.final_val_loss) == ("out of time", result.steps, result.final_val_loss)
    assert again.message.startswith("the 0.01 minutes of max_minutes were used up before resuming")
    flags = ["--max_minutes", "10", "--train_steps", str(result.steps + 2)]
    more = _run(config_from_arguments(["--resume_ckp", str(result.checkpoint_path), *flags]))
    assert (more.ending, more.steps) == ("finished", result.steps + 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "post"}, {"norm": "none"}, {"position": "none"}, {"ffn": "silu"}, {"tie_embeddings": True},
        {"qk_norm": True}, {"dtype": "bfloat16"}, {"dtype": "bfloat16", "qk_norm": True, "tie_embeddings": True},
    ],
)  # fmt: skip
def test_every_ablation_takes_training_steps(make_config, settings):
    config = make_config(train_steps=20, **settings)
    trainer = Trainer(config, config.model_config(VOCAB), _sequence(500), _sequence(200))
    before = trainer.evaluate()
    for _ in range(20):
        trainer.train_step()
    assert trainer.evaluate() < before - 0.1
    assert {parameter.dtype for parameter in trainer.model.parameters()} == {torch.float32}


def test_bf16_autocast_is_close_to_fp32(make_config):
    losses = []
    for dtype in ("float32", "bfloat16"):
        config = make_config(dtype=dtype)
        trainer = Trainer(config, config.model_config(VOCAB), _sequence(500), _sequence(200))
        losses.append([trainer.train_step().loss.item() for _ in range(5)])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_step_time_is_measured_without_data_or_traces(make_config, tmp_path):
    config = make_config(data_dir=str(tmp_path / "nowhere"))
    assert 0 < measure_step_seconds(config) < 60
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="vocab_size"):
        measure_step_seconds(make_config(vocab_size=None))


def test_missing_and_unfit_data_are_one_sentence(make_config, tmp_path, data_dir, capsys):
    with pytest.raises(SystemExit) as leaving:
        run_command(main, ["--data_dir", str(tmp_path / "nowhere"), "--no_wandb"])
    assert leaving.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nowhere/train.dat" in error
    assert "scripts/train_bpe.py" in error
    assert "scripts/tokenize_test.py" in error
    with pytest.raises(UsageError, match="--vocab_size"):
        _run(make_config(vocab_size=None))
    with pytest.raises(UsageError, match="vocabulary has only 20 tokens"):
        _run(make_config(vocab_size=20))
    with pytest.raises(UsageError, match="700 tokens; a context of 1000 needs"):
        _run(make_config(context_len=1000))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--run_dir", "--save_ckp_path"])
@pytest.mark.parametrize("name", ["a_file", "a_file/below"])
def test_a_folder_that_cannot_be_made_is_refused_before_training(tmp_path, data_dir, monkeypatch, capsys, flag, name):
    monkeypatch.chdir(tmp_path)
    Path("a_file").write_text("not a folder")
    with pytest.raises(SystemExit) as leaving:
        run_command(main, ["--data_dir", str(data_dir), "--no_wandb", "--device", "cpu", flag, name])
    assert leaving.value.code == 2
    error = f"error: {flag[2:]} {name} cannot be a folder: a_file is a file\n"
    assert capsys.readouterr().err == error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_file", "data"]


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the user of the tests may write anywhere
    with pytest.raises(UsageError, match=r"save_ckp_path .*/new cannot be written to"):
        require_writable("save_ckp_path", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_program_in_scripts_trains(data_dir, tmp_path):
    flags = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parents[1] / "scripts" / "train.py"), *flags, "--data_dir", str(data_dir),
         "--train_steps", "3", "--device", "cpu", "--no_wandb"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 steps, 384 tokens" in done.stdout
    assert read_checkpoint(tmp_path / "checkpoints" / "checkpoint_final.pt")["iteration"] == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_trains_and_resumes_exactly(make_config, tmp_path, dtype):
    whole = _run(make_config("whole", device="cuda", dtype=dtype))
    assert whole.final_val_loss < 3.0
    path = tmp_path / "whole" / "checkpoints" / "checkpoint_20.pt"
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "metrics.jsonl").write_text(whole.metrics_path.read_text())
    other = str(tmp_path / "b")
    second = _run(config_from_arguments(["--resume_ckp", str(path), "--run_dir", other, "--save_ckp_path", other]))
    if dtype == "float32":
        _assert_same_run(whole, second)
    else:
        assert second.final_val_loss == pytest.approx(whole.final_val_loss, rel=1e-3)


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs MPS")
def test_mps_trains(make_config):
    assert _run(make_config(device="mps", train_steps=60)).final_val_loss < 3.0


def test_shapes_of_the_config_reach_the_model(make_config):
    config = make_config(qk_norm=True, ffn="silu", rope_theta=500.0)
    trainer = Trainer(config, config.model_config(VOCAB), _sequence(99), _sequence(99))
    assert trainer.model.config == TransformerConfig(
        vocab_size=VOCAB, context_length=16, d_model=32, num_layers=2, num_heads=2, d_ff=64, rope_theta=500.0,
        ffn="silu", qk_norm=True,
    )  # fmt: skip
