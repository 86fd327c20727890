"""Models and tokenizers exchanged with transformers: equal weights give equal logits, equal text equal ids."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from cs336_basics.bpe.train import train_bpe
from cs336_basics.command_line import UsageError
from cs336_basics.hf_llama import export_llama, load_llama
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.tokenizer import Tokenizer

SCRIPT = Path(__file__).parents[1] / "scripts" / "export_hf.py"
TEXT = (
    "Once upon a time there was a cat. The cat's name was Tom.\n\nTom said: “I'm 3 years old!” naïve café 🐈\r\n" * 20
)


def small_model(**settings) -> BasicsTransformerLM:
    torch.manual_seed(0)
    model = BasicsTransformerLM(300, 32, 48, 2, 4, 96, 500.0, **settings)
    with torch.no_grad():
        for parameter in model.parameters():  # gains at exactly one would hide a norm in the wrong place
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def llama(**settings) -> LlamaForCausalLM:
    torch.manual_seed(1)
    shape = {
        "vocab_size": 300,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "max_position_embeddings": 32,
        "rms_norm_eps": 1e-4,
        "initializer_range": 0.2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
    }
    return LlamaForCausalLM(LlamaConfig(**(shape | settings)))


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8", newline="")
    special = ["<|endoftext|>", "<|endoftext|><|endoftext|>", "<|user|>"]
    vocab, merges = train_bpe(folder / "text.txt", 300, special)
    Tokenizer(vocab, merges, special).save(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_computes_our_logits_from_the_export(tmp_path, tied):
    model = small_model(tie_embeddings=tied)
    export_llama(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert isinstance(theirs, LlamaForCausalLM)
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in model.parameters())
    token_ids = torch.randint(300, (3, 32))
    torch.testing.assert_close(model(token_ids), theirs(token_ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
def test_we_compute_transformers_logits_from_its_checkpoint(tmp_path, tied, shard_size):
    theirs = llama(tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_size == "40KB")
    model = load_llama(tmp_path)
    assert model.config.tie_embeddings == tied
    assert model.config.norm_eps == 1e-4
    assert model.config.rope_theta == 500.0
    token_ids = torch.randint(300, (3, 32))
    torch.testing.assert_close(model(token_ids), theirs(token_ids).logits, rtol=1e-4, atol=1e-4)


def test_there_and_back_again_is_exact_also_in_bfloat16(tmp_path):
    model = small_model().bfloat16()
    export_llama(model, tmp_path)
    again = load_llama(tmp_path)
    assert again.config == model.config
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    for name, weight in model.state_dict().items():
        assert weight.dtype == again.state_dict()[name].dtype == torch.bfloat16
        assert torch.equal(weight, again.state_dict()[name]), name


def test_loading_a_tied_checkpoint_ties_the_parameters(tmp_path):
    export_llama(small_model(tie_embeddings=True), tmp_path)
    assert "lm_head.weight" not in safetensors.torch.load_file(tmp_path / "model.safetensors")
    model = load_llama(tmp_path)
    assert model.lm_head.weight is model.token_embeddings.weight


def test_rope_theta_is_read_from_old_and_new_configurations(tmp_path):
    export_llama(small_model(), tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["rope_parameters"]
    path.write_text(json.dumps(config))
    assert load_llama(tmp_path).config.rope_theta == 500.0
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 500.0}
    del config["rope_theta"]
    path.write_text(json.dumps(config))
    assert load_llama(tmp_path).config.rope_theta == 500.0


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"norm": "post"}, "norm"),
        ({"position": "none"}, "position"),
        ({"ffn": "silu"}, "ffn"),
        ({"qk_norm": True}, "qk_norm"),
    ],
)
def test_a_model_that_is_no_llama_is_refused_and_nothing_written(tmp_path, settings, word):
    with pytest.raises(UsageError, match=f"{word}=.*is not a Llama"):
        export_llama(small_model(**settings), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_key_value_heads": 2}, "num_key_value_heads 2; only 4"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"head_dim": 16}, "head_dim 16"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5}}, "rope_type 'llama3'"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type 'linear'"),
        ({"model_type": "gpt2"}, "type 'gpt2'; only 'llama'"),
        ({"intermediate_size": 100}, "do not have the shapes"),
        ({"num_hidden_layers": 3}, "lacks 9 weights"),
    ],
)
def test_a_llama_we_cannot_compute_is_refused(tmp_path, change, message):
    export_llama(small_model(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UsageError, match=message):
        load_llama(tmp_path)


def test_incomplete_and_damaged_folders_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no config\.json"):
        load_llama(tmp_path)
    export_llama(small_model(), tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UsageError, match="is damaged"):
        load_llama(tmp_path)
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(UsageError, match="only weights in safetensors"):
        load_llama(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="not valid JSON"):
        load_llama(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 48}')
    with pytest.raises(UsageError, match="does not say num_attention_heads"):
        load_llama(tmp_path)


def check_same_ids(folder: Path, ours: Tokenizer, texts: list[str]) -> None:
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in texts:
        ids = ours.encode(text)
        assert theirs.encode(text) == ids, text[:80]
        assert theirs.decode(ids) == ours.decode(ids)


def test_autotokenizer_gives_our_ids(tmp_path, tokenizer_dir):
    tokenizer = Tokenizer.from_directory(tokenizer_dir)
    export_llama(small_model(), tmp_path, tokenizer_dir)
    texts = [TEXT, "", " ", "a  b\n\n c", "\x00\t\x7f", "e\u0301 \u3000 \U0001f469\u200d\U0001f680", "don't ’tis 12345"]
    texts += ["x<|endoftext|>y<|endoftext|><|endoftext|><|user|> z"]
    check_same_ids(tmp_path, tokenizer, texts)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == 300
    assert theirs.eos_token_id == tokenizer.eos_id
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == tokenizer.eos_id


def test_autotokenizer_gives_our_ids_for_gpt2s_vocabulary_on_real_text(tmp_path, shared_data):
    files = (shared_data / "tokenizer" / "gpt2_vocab.json", shared_data / "tokenizer" / "gpt2_merges.txt")
    tokenizer = Tokenizer.from_files(*files, ["<|endoftext|>"])
    tokenizer.save(tmp_path / "tokenizer")
    model = BasicsTransformerLM(tokenizer.vocab_size, 16, 8, 1, 1, 8)
    export_llama(model, tmp_path / "model", tmp_path / "tokenizer")
    names = ("tinystories_val_cased.txt", "wikitext2_valid.txt", "tinyshakespeare.txt")
    texts = [(shared_data / "text" / name).read_text(encoding="utf-8")[:200_000] for name in names]
    check_same_ids(tmp_path / "model", tokenizer, texts)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path, tokenizer_dir):
    model = BasicsTransformerLM(299, 16, 8, 1, 1, 8)
    with pytest.raises(UsageError, match="has 300 ids, but the model knows only 299"):
        export_llama(model, tmp_path / "out", tokenizer_dir)


def test_the_command_exports_a_checkpoint(tmp_path, tokenizer_dir, monkeypatch, capsys):
    model = small_model()
    torch.save({"model_state_dict": model.state_dict(), "model_config": model.config.to_dict()}, tmp_path / "c.pt")
    arguments = ["--checkpoint", tmp_path / "c.pt", "--tokenizer", tokenizer_dir, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["export_hf.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert str(tmp_path / "out") in capsys.readouterr().out
    token_ids = torch.arange(20).unsqueeze(0)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(model(token_ids), theirs(token_ids).logits, rtol=1e-4, atol=1e-4)


def test_the_command_names_a_missing_tokenizer_and_checkpoint(tmp_path, tokenizer_dir, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["export_hf.py"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stopped.value.code == 2
    error = "error: tokenizer is not there; `uv run python scripts/train_bpe.py` makes it, or name another one\n"
    assert capsys.readouterr().err == error
    monkeypatch.setattr(sys, "argv", ["export_hf.py", "--tokenizer", str(tokenizer_dir)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert stopped.value.code == 2
    assert "`uv run python cs336_basics/train.py` makes it" in capsys.readouterr().err
    assert not (tmp_path / "hf_model").exists()
