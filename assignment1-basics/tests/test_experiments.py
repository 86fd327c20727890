"""The studies: whole small ones through the engine, kills and divergence included, and the definitions of the large."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cs336_basics.command_line import UsageError, run_command
from cs336_basics.experiments import engine
from cs336_basics.experiments.command import STUDIES, main
from cs336_basics.experiments.engine import Options, run_config, run_study
from cs336_basics.experiments.study import SCALES, Run, Study
from cs336_basics.experiments.tokens import CorpusFolders
from cs336_basics.model import BasicsTransformerLM
from cs336_basics.run_log import read_metrics

TINY = {
    "context_len": 16, "d_model": 16, "num_layers": 1, "num_heads": 2, "batch_size": 4, "train_steps": 6,
    "val_interval": 3, "val_batches": 2, "log_intervals": 1, "warm_up_it": 1,
}  # fmt: skip
STUDY = Study("tiny", "A tiny study", "Which rate?", TINY, (), ("max_lr",), x_axis="max_lr", vocab_size=300)
CORPUS = CorpusFolders(Path("data"), Path("tokenizer"), "a text")


@pytest.fixture(autouse=True)
def _one_thread():
    """So small a model is slower with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One folder for all, so that the tokens are made once."""
    return tmp_path_factory.mktemp("experiments")


def options(out, **changes):
    return replace(Options(out=out, scale="smoke", device="cpu", progress=False), **changes)


def study(name, *rates, **changes):
    runs = tuple(Run(f"lr_{rate:g}", {"max_lr": rate}) for rate in rates)
    return replace(STUDY, name=name, runs=runs, **changes)


def test_a_study_trains_its_runs_and_writes_its_results(out):
    outcomes = run_study(study("whole", 1e-3, 1e-2), options(out))
    assert [outcome.ending for outcome in outcomes] == ["finished", "finished"]
    folder = out / "whole" / "smoke"
    for outcome, rate in zip(outcomes, (1e-3, 1e-2), strict=True):
        log = read_metrics(folder / outcome.run / "metrics.jsonl")
        assert log[-1]["val_loss"] == outcome.final_val_loss
        assert max(entry.get("lr", 0.0) for entry in log) == pytest.approx(rate)
    with open(folder / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["lr_0.001", "lr_0.01"]
    assert [float(row["val. loss"]) for row in rows] == [outcome.final_val_loss for outcome in outcomes]
    assert (folder / "table.md").read_text().count("\n| lr_") == 2
    assert json.loads((folder / "results.json").read_text())[1]["settings"]["max_lr"] == 1e-2
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("curves.png", "losses.png"))
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64") == 2
    assert "Once upon a time" in page


def test_ended_runs_are_not_repeated_but_changed_ones_are(out):
    first = run_study(study("again", 1e-3, 1e-2), options(out))
    logs = [out / "again" / "smoke" / outcome.run / "metrics.jsonl" for outcome in first]
    before = [log.stat().st_mtime_ns for log in logs]
    assert run_study(study("again", 1e-3, 1e-2), options(out)) == first
    assert [log.stat().st_mtime_ns for log in logs] == before
    changed = replace(study("again", 1e-3, 1e-2), base={**TINY, "d_model": 32})
    second = run_study(changed, options(out, only=("lr_0.01",)))
    assert [outcome.run for outcome in second] == ["lr_0.01"]
    assert second[0].num_parameters > first[1].num_parameters
    assert logs[0].stat().st_mtime_ns == before[0]
    assert (logs[1].parent.with_name("lr_0.01.old1") / "metrics.jsonl").stat().st_mtime_ns == before[1]


def test_divergence_is_a_result_and_ends_a_sweep(out):
    sweep = study("sweep", 1e-3, 1e4, 1e5, stop_after_divergence=True)
    outcomes = run_study(sweep, options(out))
    assert [outcome.ending for outcome in outcomes] == ["finished", "diverged"]
    assert outcomes[1].message
    assert "diverged" in (out / "sweep" / "smoke" / "table.md").read_text()


def test_a_loss_that_is_not_finite_is_a_result(out, tmp_path):
    """Without normalization and clipping, a huge rate overflows within a few steps."""
    wild = replace(study("wild", 1e30), base={**TINY, "norm": "none", "clip_grad_norm": 0.0})
    (outcome,) = run_study(wild, options(out))
    assert outcome.ending == "diverged"
    assert re.search("became (nan|inf)|NaN or infinite", outcome.message)


def test_too_little_memory_is_a_result(out, monkeypatch):
    def no_memory(config, progress):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")

    with monkeypatch.context() as full:
        full.setattr(engine, "train", no_memory)
        (outcome,) = run_study(study("memory", 1e-3), options(out))
    assert (outcome.ending, outcome.final_val_loss) == ("out of memory", None)
    assert "1 TiB" in outcome.message
    assert "out of memory" in (out / "memory" / "smoke" / "table.md").read_text()

    (again,) = run_study(study("memory", 1e-3), options(out))
    assert again.ending == "finished"
    assert run_study(study("memory", 1e-3), options(out)) == [again]


def test_the_table_keeps_the_runs_that_are_not_asked_for_again(out):
    defined = study("kept", 1e-3, 3e-3, 1e-2)
    last, first = (run_study(defined, options(out, only=(name,))) for name in ("lr_0.01", "lr_0.001"))
    assert [outcome.run for outcome in last] == ["lr_0.01"]
    assert [outcome.run for outcome in first] == ["lr_0.001", "lr_0.01"]
    assert first[1] == last[0]
    table = (out / "kept" / "smoke" / "table.md").read_text()
    assert re.findall(r"\| (lr_\S+) \|", table) == ["lr_0.001", "lr_0.01"]
    assert len(json.loads((out / "kept" / "smoke" / "results.json").read_text())) == 2
    (other,) = run_study(defined, options(out, only=("lr_0.003",), seed=1))
    assert other.run == "lr_0.003", "runs of another seed do not belong into the same table"


def test_another_spelling_of_the_folder_is_the_same_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run_study(study("spelled", 1e-3), options(Path("made")))
    (tmp_path / "link").symlink_to(tmp_path / "made")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for spelling in (tmp_path / "made", Path("../made"), tmp_path / "link"):
        assert run_study(study("spelled", 1e-3), options(spelling)) == first
    runs = tmp_path / "made" / "spelled" / "smoke"
    assert [path.name for path in runs.iterdir() if path.is_dir()] == ["lr_0.001"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_settings_of_every_run_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UsageError, match="max_lr is -1"):
        run_study(study("refused", 1e-3, -1.0), options(tmp_path))
    assert not list(tmp_path.iterdir())


def test_steps_are_chosen_to_fill_a_time(out):
    filled = replace(study("filled", 1e-3), fill_minutes=0.02)
    (outcome,) = run_study(filled, options(out))
    assert outcome.ending in ("finished", "out of time")
    assert outcome.settings["max_minutes"] == 0.02
    assert outcome.settings["train_steps"] != TINY["train_steps"]
    assert run_study(filled, options(out)) == [outcome]


@pytest.mark.slow
def test_a_killed_study_goes_on_where_it_was(tmp_path):
    program = "from cs336_basics.experiments.command import main; main()"
    arguments = ["tinystories", "--smoke", "--train_steps", "200", "--out", str(tmp_path), "--device", "cpu"]
    command = [sys.executable, "-c", program, *arguments]
    run_dir = tmp_path / "tinystories" / "smoke" / "base_model"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        while not list((run_dir / "checkpoints").glob("checkpoint_*.pt")):
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    step = max(int(re.search(r"\d+", path.name)[0]) for path in (run_dir / "checkpoints").glob("checkpoint_*.pt"))
    before = [entry for entry in read_metrics(run_dir / "metrics.jsonl") if entry["step"] <= step]
    assert not (run_dir / "outcome.json").exists()

    small = STUDIES["tinystories"]("smoke")
    (outcome,) = run_study(small, options(tmp_path, train_steps=200, text_dir=Path("data")))
    assert (outcome.ending, outcome.steps) == ("finished", 200)
    after = read_metrics(run_dir / "metrics.jsonl")
    assert after[: len(before)] == before  # the seconds in it show that these steps were not done again
    assert after[-1]["step"] == 200


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batch_size", "ablations", "openwebtext", "leaderboard"])
def test_every_study_has_a_smoke_version_that_runs(name, tmp_path, capsys):
    main([name, "--smoke", "--out", str(tmp_path), "--device", "cpu", "--train_steps", "3"])
    printed = capsys.readouterr().out
    runs = [run.name for run in STUDIES[name]("smoke").runs]
    assert all(f"\n| {run} |" in printed for run in runs)
    assert (tmp_path / name / "smoke" / "report.html").is_file()


@pytest.mark.slow
def test_the_learning_rate_sweep_ends_where_it_diverges(tmp_path, capsys):
    main(["learning_rate", "--smoke", "--out", str(tmp_path), "--device", "cpu"])
    rows = re.findall(r"^\| (lr_\S+) .* (\S+) \|$", capsys.readouterr().out, re.MULTILINE)
    assert rows == [("lr_0.001", "finished"), ("lr_0.01", "finished"), ("lr_10", "diverged")]


# ---------------------------------------------------------------- definitions


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_all_settings_are_allowed_and_names_unique(name, scale):
    defined = STUDIES[name](scale)
    assert defined.name == name
    configs = [run_config(defined, run, CORPUS, Path("run"), Options(scale=scale)) for run in defined.runs]
    assert len({run.name for run in defined.runs}) == len(configs)
    for column in defined.varied:
        assert len({getattr(config, column) for config in configs}) > 1


@pytest.mark.parametrize(("scale", "tokens"), [("gpu", 327_680_000), ("laptop", 40_960_000)])
@pytest.mark.parametrize("name", ["tinystories", "openwebtext", "learning_rate", "ablations"])
def test_the_handouts_budget_and_model(name, scale, tokens):
    base = STUDIES[name](scale).base
    assert base["batch_size"] * base["train_steps"] * base["context_len"] == tokens
    assert (base["d_model"], base["d_ff"], base["num_layers"], base["num_heads"]) == (512, 1344, 4, 16)


@pytest.mark.parametrize("scale", SCALES)
def test_batch_sizes_see_equally_many_tokens_in_training_and_validation(scale):
    configs = [run.settings for run in STUDIES["batch_size"](scale).runs]
    trained = [settings["batch_size"] * settings["train_steps"] for settings in configs]
    assert max(trained) <= 1.05 * min(trained)
    validated = [settings["batch_size"] * settings["val_batches"] for settings in configs]
    assert max(validated) <= 2 * min(validated)


def test_ablations_change_one_thing_and_silu_keeps_the_parameters():
    defined = STUDIES["ablations"]("laptop")
    sizes = {}
    for run in defined.runs:
        config = run_config(defined, run, CORPUS, Path("run"), Options(scale="laptop"))
        with torch.device("meta"):
            model = BasicsTransformerLM.from_config(config.model_config(10_000))
        sizes[run.name] = sum(parameter.numel() for parameter in model.parameters())
    assert sizes["silu"] == pytest.approx(sizes["baseline"], rel=0.01)
    assert sizes["no_position"] == sizes["baseline"]
    assert sizes["post_norm"] == sizes["baseline"] - 512  # the last block's norm stands where the final one would
    assert sizes["no_norm"] == sizes["baseline"] - 512 * 9


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablations", "--smoke", "--scale", "gpu"], "--smoke and --scale gpu contradict each other"),
        (["ablations", "--smoke", "--only", "no_attention"], "no run 'no_attention'; its runs are baseline, no_norm"),
        (["openwebtext", "--scale", "cpu"], "`cs336 data get owt` downloads OpenWebText"),
        (["tinystories", "--smoke", "--train_steps", "0"], "train_steps is 0"),
        (["tinystories", "--smoke", "--device", "tpu"], "device 'tpu' is unknown"),
    ],
)
def test_bad_input_is_one_sentence(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_command(main, [*arguments, "--out", str(tmp_path / "out"), "--data_dir", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_without_a_name_the_studies_are_listed(capsys):
    main([])
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in STUDIES)


def test_select_keeps_the_studys_order():
    defined = STUDIES["ablations"]("smoke")
    assert [run.name for run in defined.select(["silu", "baseline"])] == ["baseline", "silu"]
    with pytest.raises(UsageError, match="no run 'x'"):
        defined.select(["x"])
