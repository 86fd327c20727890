"""Training on documents: configurations, token files by name, a run from a YAML file, and the default's whole way."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from cs336_basics.accounting import num_parameters
from cs336_basics.bpe.train import train_bpe
from cs336_basics.check_pointing import load_model, read_checkpoint
from cs336_basics.command_line import UsageError
from cs336_basics.run_log import read_metrics
from cs336_basics.token_file import encode_file, load_tokens
from cs336_basics.tokenizer import END_OF_TEXT, Tokenizer
from cs336_data.training_run import config_from_arguments, main, read_config, with_tokens

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = {
    "d_model": 32, "num_layers": 1, "num_heads": 2, "d_ff": 64, "context_len": 16, "batch_size": 4, "train_steps": 12,
    "max_lr": 0.01, "val_interval": 6, "val_batches": 3, "log_intervals": 2, "device": "cpu", "num_samples": 2,
    "sample_tokens": 8, "no_wandb": True,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """A folder with a tokenizer, train.dat, valid.dat, and other.bin without a sidecar."""
    folder = tmp_path_factory.mktemp("tokens")
    texts = {"train": "to be or not to be, that is the question. ", "valid": "whether to be, or not. ", "other": "be! "}
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text((text * 8 + END_OF_TEXT) * 12)
    vocab, merges = train_bpe(folder / "train.txt", 280, [END_OF_TEXT], num_workers=1)
    tokenizer = Tokenizer(vocab, merges, [END_OF_TEXT])
    tokenizer.save(folder / "tokenizer")
    for name in ("train", "valid", "other"):
        encode_file(tokenizer, folder / f"{name}.txt", folder / f"{name}.dat", progress=False)
    (folder / "other.dat").rename(folder / "other.bin")
    (folder / "other.dat.json").unlink()
    return folder


def _write_config(folder, tokens, **settings):
    path = folder / "tiny.yaml"
    places = {"data_dir": str(tokens), "tokenizer_dir": str(tokens / "tokenizer"),
              "save_ckp_path": str(folder / "checkpoints"), "run_dir": str(folder / "run")}  # fmt: skip
    path.write_text(yaml.safe_dump({**TINY, **places, **settings}))
    return path


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.glob("train_*.yaml")))
def test_configurations_are_allowed(name):
    config = config_from_arguments(["--config", str(CONFIGS / name), "--device", "cpu"])
    assert config.layout(2).data_strategy == "ddp"


def test_the_handouts_configuration():
    config = config_from_arguments(["--config", str(CONFIGS / "train_gpt2_small.yaml"), "--device", "cpu"])
    model = config.model_config(50_257)
    assert (model.num_layers, model.d_model, model.num_heads, model.d_ff, model.context_length) == (
        12,
        768,
        12,
        2048,
        512,
    )
    # Two embeddings; per layer four matrices of attention, three of SwiGLU and two norms; the last norm.
    layer = 4 * 768 * 768 + 3 * 768 * 2048 + 2 * 768
    assert num_parameters(model) == 2 * 50_257 * 768 + 12 * layer + 768
    assert config.batch_size == 2 * 128
    assert (config.dtype, config.parallel) == ("bfloat16", "ddp")


def test_flags_overrule_the_configuration(tokens, tmp_path):
    path = _write_config(tmp_path, tokens, max_lr="2e-3")
    config = config_from_arguments(["--config", str(path), "--train_steps", "7"])
    assert (config.train_steps, config.d_model, config.max_lr) == (7, 32, 2e-3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("d_modle: 3", "'d_modle' is unknown; did you mean 'd_model'"),
        ("xyzzy: 3", "'xyzzy' is unknown; .*--help"),
        ("- d_model", "must hold settings"),
        ("d_model: [", "is not YAML"),
        ("d_model: wide", "d_model is 'wide'; it must be of type int"),
        ("max_lr: high", "max_lr is 'high'; it must be of type float"),
        ("parallel: all", "parallel is 'all'; allowed are"),
        ("top_p: 1.5", r"top_p is 1.5; allowed"),
        ("num_samples: -1", "num_samples is -1; allowed"),
    ],
)
def test_bad_configurations_are_told_in_one_sentence(content, message, tmp_path):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(UsageError, match=message):
        config_from_arguments(["--config", str(tmp_path / "bad.yaml")])


def test_a_missing_configuration(tmp_path):
    with pytest.raises(UsageError, match="there is no configuration"):
        read_config(tmp_path / "none.yaml")


def test_missing_and_foreign_tokens_are_told(tokens, tmp_path):
    def prepared(**settings):
        return with_tokens(config_from_arguments(["--config", str(_write_config(tmp_path, tokens, **settings))]))

    with pytest.raises(UsageError, match=r"no token file .*tokenize_documents\.py"):
        prepared(data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"no token file .*paloma"):
        prepared(valid_tokens=str(tmp_path / "paloma.bin"))
    Tokenizer({byte: bytes([byte]) for byte in range(256)}, [], [END_OF_TEXT]).save(tmp_path / "other_tokenizer")
    with pytest.raises(UsageError, match="another tokenizer"):
        prepared(tokenizer_dir=str(tmp_path / "other_tokenizer"))


def _reference_loss(checkpoint, path, num_batches):
    """The mean loss over that many batches of windows spread over a token file, by torch's own cross-entropy."""
    tokens, size = load_tokens(path), TINY["context_len"]
    windows = np.arange((len(tokens) - 1) // size)
    count = min(len(windows), num_batches * TINY["batch_size"])
    starts = [len(windows) * place // count * size for place in range(count)]
    batch = torch.tensor(np.stack([tokens[start : start + size + 1] for start in starts]).astype(np.int64))
    with torch.no_grad():
        logits = load_model(checkpoint, "cpu")(batch[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).item()


def test_a_run_validates_on_the_file_given_writes_and_goes_on(tokens, tmp_path, capsys):
    path = _write_config(tmp_path, tokens, valid_tokens=str(tokens / "other.bin"), prompt="to be")
    main(["--config", str(path)])
    checkpoint = tmp_path / "checkpoints" / "checkpoint_final.pt"
    losses = [entry["val_loss"] for entry in read_metrics(tmp_path / "run" / "metrics.jsonl") if "val_loss" in entry]
    assert losses[-1] < losses[0]
    assert losses[-1] == pytest.approx(_reference_loss(checkpoint, tokens / "other.bin", 3), rel=1e-5)
    assert losses[-1] != pytest.approx(_reference_loss(checkpoint, tokens / "valid.dat", 3), rel=1e-3)
    samples = (tmp_path / "run" / "samples.txt").read_text()
    assert samples.count("--- sample\nto be") == 2
    assert samples in capsys.readouterr().out

    # Resumed without --config, the settings are the checkpoint's, links included.
    resumed = ["--resume_ckp", str(checkpoint), "--save_ckp_path", str(tmp_path / "checkpoints"), "--train_steps", "16"]
    main(resumed)
    stored = read_checkpoint(checkpoint)["train_config"]
    assert (stored["d_model"], stored["train_steps"]) == (32, 16)
    links = Path(stored["data_dir"])
    assert (links / "valid.dat").resolve() == tokens / "other.bin"
    assert (links / "train.dat").resolve() == tokens / "train.dat"
    assert not (links / "valid.dat.json").exists()


@pytest.mark.slow
def test_the_default_goes_the_whole_way(tmp_path, monkeypatch, capfd):
    """Small web, filters, tokens, two processes that train, and samples: with nothing there beforehand."""
    monkeypatch.chdir(tmp_path)
    main(["--smoke"])
    printed = capfd.readouterr().out
    assert "20 steps" in printed
    assert "--- sample" in printed
    assert (tmp_path / "runs" / "smoke" / "report.html").is_file()
    stored = read_checkpoint(tmp_path / "checkpoints" / "smoke" / "checkpoint_final.pt")["train_config"]
    assert (stored["parallel"], stored["processes"]) == ("ddp", 2)
