"""`scripts/scaling.py` against the real server: what it prints, and one sentence with exit code 2 for every mistake."""

import json
import re

import pytest

from cs336_basics.command_line import run_command
from cs336_scaling.client.command import main
from cs336_scaling.schemas.edition_2026 import TrainingConfig

from .api_server import running_server, small_config

SMALL = ["--hidden_size", "128", "--num_hidden_layers", "2", "--train_batch_size", "16"]


@pytest.fixture
def server(tmp_path, monkeypatch):
    with running_server(tmp_path / "server") as server:
        monkeypatch.setenv("CS336_API_KEY", server.key)
        yield server


@pytest.fixture
def scaling(server, tmp_path, capsys):
    """Runs the command and returns what it printed."""

    def run(*words):
        command, *rest = words
        flags = ["--url", server.url, "--cache_dir", str(tmp_path / "cache"), "--tries", "1"]
        main([command, *flags, *map(str, rest)])
        return capsys.readouterr().out

    return run


def test_2026_from_budget_to_final_submission(scaling, tmp_path):
    assert "left 43,200" in scaling("budget")
    assert "1 new run would take 600 s; 0 are free" in scaling("submit", "--dry-run", *SMALL)
    assert "43,200 s left of the budget" not in scaling("submit", "--wait", "--poll_seconds", 0.01, *SMALL)
    assert "0 new runs would take 0 s; 1 is free" in scaling("submit", "--dry-run", *SMALL)
    assert "there already" in scaling("submit", *SMALL)
    table = scaling("experiments")
    assert "completed" in table
    assert "best" in table
    [experiment] = json.loads(scaling("experiments", "--json"))
    config = TrainingConfig.model_validate(experiment["training_config"])
    assert config.architecture_config.hidden_size == 128
    assert "completed" in scaling("watch", experiment["experiment_id"][:5])

    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps([config.model_dump(mode="json"), small_config(192).model_dump(mode="json")]))
    assert "1 new run would take 600 s; 1 is free" in scaling("submit", plan, "--dry-run")
    assert len(json.loads(scaling("submit", plan, "--json"))) == 2
    assert len(json.loads(scaling("experiments", "--json"))) == 2

    final = tmp_path / "final.json"
    final.write_text(json.dumps({"training_config": config.model_dump(mode="json"), "predicted_final_loss": 3.4}))
    assert "predicted loss 3.4" in scaling("submit-final", final)
    answer = json.loads(scaling("submit-final", final, "--predicted_final_loss", 3.3, "--json"))
    assert answer["predicted_final_loss"] == 3.3


def test_2025_budget_queries_and_runs(scaling):
    edition = ("--edition", "2025")
    assert "left 2e+18" in scaling("budget", *edition)
    assert "1 new run would take 1e+16 FLOPs" in scaling("submit", *edition, "--train_flops", 1e16, "--dry-run")
    assert "1e+16 FLOPs used so far" in scaling("submit", *edition, "--train_flops", 1e16)
    assert "1 is free" in scaling("submit", *edition, "--train_flops", 1e16, "--dry-run")
    assert json.loads(scaling("budget", *edition, "--json"))["total_flops_used"] == 1e16
    assert "4 x 256" in scaling("experiments", *edition)


def test_a_dry_run_needs_no_server(monkeypatch, capsys):
    monkeypatch.delenv("CS336_API_KEY", raising=False)
    main(["submit", "--dry-run"])
    main(["submit", "--dry-run", "--edition", "2025", "--train_flops", "1e17"])
    assert capsys.readouterr().out.splitlines() == [
        "1 new run would take 600 s; 0 are free (repeated).",
        "1 new run would take 1e+17 FLOPs; 0 are free (repeated).",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["budget", "--api_key", "wrong"], "X-API-Key holds no valid key"),
        (["budget", "--api_key", "wrong", "--edition", "2025"], "no queries|Invalid API key"),
        (["submit", "--peak_lr", "0"], "peak_value: .* got 0.0"),
        (["submit", "--hidden_size", "100"], "hidden_size 100 is no multiple of head_dim 64"),
        (["submit", "--total_train_tokens", "1000"], "total_train_tokens must be divisible by 512"),
        (["submit", "--train_batch_size", "0"], "train_batch_size is 0"),
        (["submit", "--max_runtime_seconds", "50000"], "max_runtime_seconds: .* got 50000.0"),
        (["submit", "--edition", "2025", "--d_model", "9999"], r"d_model must be in range \[64, 1024\], got 9999"),
        (["submit", "--edition", "2025", "--train_flops", "2e16"], "train_flops must be one of"),
        (["submit", "nowhere.json"], "nowhere.json"),
        (["watch", "zz"], "0 experiments have an id that begins with 'zz'"),
        (["watch", "--edition", "2025"], "the 2025 edition has no watch"),
        (["submit-final", "nowhere.json"], "nowhere.json"),
        (["budget", "--url", "localhost"], "server address is 'localhost'"),
        (["budget", "--tries", "0"], "tries is 0"),
        (["budget", "--timeout", "0"], "timeout is 0"),
        (["watch", "--poll_seconds", "-1"], "poll_seconds is -1"),
    ],
)
def test_mistakes_are_one_sentence(server, capsys, monkeypatch, words, sentence):
    monkeypatch.setenv("CS336_API_URL", server.url)
    command, *rest = words
    url = [] if "--url" in rest else ["--url", server.url]
    with pytest.raises(SystemExit) as stop:
        run_command(main, [command, *url, "--no_cache", *rest])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: ")
    assert re.search(sentence, error)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no runs"),
        ("[1]", "holds no runs"),
        ('{"train_batch_size": 1}', "run 1 of .*architecture_config: Field required"),
    ],
)
def test_files_that_hold_no_runs(server, tmp_path, capsys, content, sentence):
    path = tmp_path / "runs.json"
    path.write_text(content)
    with pytest.raises(SystemExit) as stop:
        run_command(main, ["submit", "--url", server.url, "--no_cache", str(path)])
    assert stop.value.code == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_no_key_is_said(monkeypatch, capsys):
    monkeypatch.delenv("CS336_API_KEY", raising=False)
    with pytest.raises(SystemExit) as stop:
        run_command(main, ["budget"])
    assert stop.value.code == 2
    assert "CS336_API_KEY" in capsys.readouterr().err
