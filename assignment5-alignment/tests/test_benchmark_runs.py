"""Whole evaluations with tiny models through the real engine: results, going on after a kill, refusals."""

import csv
import json
import os
import signal
import subprocess
import sys

import pytest

from cs336_alignment.evaluation.benchmark import evaluate
from cs336_alignment.evaluation.command import main
from cs336_alignment.evaluation.config import EvaluationConfig
from cs336_alignment.evaluation.engines import EngineChoice, EngineOnDemand
from cs336_alignment.evaluation.resumable import run_folder, run_in_chunks
from cs336_alignment.rollouts.hf_engine import HFEngine
from cs336_alignment.rollouts.interface import SamplingParameters
from cs336_basics.command_line import UsageError, run_command

from .evaluation_cases import random_model, reflex_model


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("random") / "model")


def run(model, out, **settings):
    quick = {"max_tokens": 8, "quiet": True, "device": "cpu", "judge_device": "cpu", "judge_max_tokens": 8}
    return evaluate(EvaluationConfig(**{**quick, "model": model, "out": str(out), **settings}))


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", ["default", "math", "gsm8k", "mmlu", "countdown"])
def test_graded_tasks_from_end_to_end(random_folder, tmp_path, task, capsys):
    summary = run(random_folder, tmp_path, task=task, num_samples=2, pass_at="1,2", temperature=1.0, max_examples=6)
    results = rows(tmp_path / "results.jsonl")
    assert len(results) == summary["examples"] == 6
    responses = [one for row in results for one in row["responses"]]
    assert len(responses) == 12
    assert sum(summary["categories"].values()) == 12
    assert summary["accuracy"]["value"] == sum(one["reward"] for one in responses) / 12
    assert all(1 <= one["tokens"] <= 8 for one in responses)
    assert set(summary["pass_at"]) == {"1", "2"}
    assert summary["throughput"]["tokens_per_second"] > 0
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    page = (tmp_path / "report.html").read_text()
    assert "Format and answer" in page
    assert "pass@k" in page
    printed = capsys.readouterr().out
    assert "| format 0, answer 0 |" in printed
    assert str(tmp_path) in printed


def test_a_model_that_knows_one_answer_gets_it_right(tmp_path, capsys):
    """MMLU's own examples, answered with B throughout: as many right as there are Bs."""
    model = reflex_model(tmp_path / "model", " The correct answer is B.")
    summary = run(model, tmp_path / "out", task="mmlu", wrapper="none")
    results = rows(tmp_path / "out" / "results.jsonl")
    assert {row["responses"][0]["text"] for row in results} == {" The correct answer is B."}
    assert {row["responses"][0]["finish_reason"] for row in results} == {"stop"}
    golds = [row["gold"] for row in results]
    assert summary["categories"] == {
        "format 1, answer 1": golds.count("B"), "format 1, answer 0": 8 - golds.count("B"), "format 0, answer 0": 0,
    }  # fmt: skip
    assert summary["by_group"]["subject"]["basic_computing"] | {"low": 0, "high": 1} == {
        "examples": 4, "value": 0.25, "low": 0, "high": 1,
    }  # fmt: skip
    assert "answer found: 'B'" in capsys.readouterr().out


def test_real_mmlu_against_a_count(shared_data, tmp_path):
    model = reflex_model(tmp_path / "model", " The correct answer is C.")
    folder = shared_data / "alignment" / "mmlu"
    data = str(folder / "virology_test.csv")
    summary = run(model, tmp_path / "out", task="mmlu", data=data, shots=1, wrapper="none", max_examples=40)
    with open(data, encoding="utf-8", newline="") as file:
        rows_of_file = list(csv.reader(file))
    golds = [rows_of_file[index * len(rows_of_file) // 40][5] for index in range(40)]
    assert summary["no_room"] == 0
    assert summary["categories"]["format 1, answer 1"] == golds.count("C")
    assert summary["accuracy"]["value"] == golds.count("C") / 40
    prompt = rows(tmp_path / "out" / "results.jsonl")[0]["prompt"]
    assert prompt.count("The correct answer is A.") == 1, "the worked example"
    assert prompt.endswith("Answer:")


def test_prompts_without_room_are_counted(tmp_path, capsys):
    model = random_model(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 300}))
    path = tmp_path / "two.jsonl"
    path.write_text("".join(json.dumps({"prompt": text, "answer": "1"}) + "\n" for text in ("Q", "Q" * 300, "Q" * 299)))
    summary = run(model, tmp_path / "out", data=str(path))
    assert summary["no_room"] == 2
    endings = [row["responses"][0]["finish_reason"] for row in rows(tmp_path / "out" / "results.jsonl")]
    assert endings[1:] == ["prompt", "prompt"]
    assert endings[0] != "prompt"
    assert "2 of 3 prompts leave no room" in capsys.readouterr().err


def test_the_same_command_goes_on_and_other_settings_are_refused(random_folder, tmp_path, capsys):
    first = run(random_folder, tmp_path, max_examples=5)
    results = (tmp_path / "results.jsonl").read_bytes()
    timing = (tmp_path / "timing.jsonl").read_bytes()
    again = run(random_folder, tmp_path, max_examples=5)
    assert again == first
    assert (tmp_path / "timing.jsonl").read_bytes() == timing, "nothing was asked again"
    with pytest.raises(
        UsageError, match=r"other settings: seed was 0 and is 1 now; give another --out, or --overwrite"
    ):
        run(random_folder, tmp_path, max_examples=5, seed=1)
    with pytest.raises(UsageError, match=r"other settings: questions was"):
        run(random_folder, tmp_path, max_examples=4)
    os.utime(next(iter((tmp_path.parent / random_folder).glob("*.safetensors"))))
    with pytest.raises(UsageError, match=r"other settings: weights was"):
        run(random_folder, tmp_path, max_examples=5)
    (tmp_path / "mine.jsonl").write_text("not to be dropped")
    run(random_folder, tmp_path, max_examples=5, overwrite=True)
    assert (tmp_path / "mine.jsonl").exists()
    assert (tmp_path / "results.jsonl").read_bytes() == results


def test_chunks_do_not_change_responses(random_folder, tmp_path):
    for chunk_size in (1, 3, 50):
        run(
            random_folder,
            tmp_path / str(chunk_size),
            task="gsm8k",
            temperature=1.0,
            num_samples=2,
            chunk_size=chunk_size,
        )
    assert len({(tmp_path / str(size) / "results.jsonl").read_bytes() for size in (1, 3, 50)}) == 1


KILLED = """
import os, signal, sys
from cs336_alignment.evaluation.command import main
from cs336_alignment.rollouts.hf_engine import HFEngine

generate, calls = HFEngine.generate, []

def dying(self, prompts, parameters):
    calls.append(prompts)
    if len(calls) == 3:
        with open(sys.argv[2] + "/results.jsonl", "ab") as results:
            results.write(b'{"id": "4", "resp')  # as if the power went while the chunk was written
        os.kill(os.getpid(), signal.SIGKILL)
    return generate(self, prompts, parameters)

HFEngine.generate = dying
main(["--model", sys.argv[1], "--out", sys.argv[2], *sys.argv[3:]])
"""
IN_CHUNKS = ["--max_examples", "7", "--chunk_size", "2", "--max_tokens", "8", "--quiet", "--device", "cpu"]


def check_that_it_goes_on(model, stopped, whole, num_kept):
    """The stopped run has so many results; it ends as the whole one does."""
    assert len((stopped / "results.jsonl").read_bytes().split(b"\n")) - 1 == num_kept
    assert not (stopped / "summary.json").exists()
    for folder in (stopped, whole):
        main(["--model", model, "--out", str(folder), *IN_CHUNKS])
    results = (whole / "results.jsonl").read_bytes()
    assert (stopped / "results.jsonl").read_bytes() == results
    assert len(results.splitlines()) == 7
    first, second = (json.loads((folder / "summary.json").read_text()) for folder in (stopped, whole))
    assert first | {"throughput": 0} == second | {"throughput": 0}


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_result(random_folder, tmp_path):
    """The process kills itself at its third chunk, so that it is always in the middle."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, random_folder, str(tmp_path / "killed"), *IN_CHUNKS], capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    check_that_it_goes_on(random_folder, tmp_path / "killed", tmp_path / "whole", 4)


def test_ctrl_c_keeps_what_is_done(random_folder, tmp_path, monkeypatch, capsys):
    generate, calls = HFEngine.generate, []

    def interrupted(self, prompts, parameters):
        calls.append(prompts)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return generate(self, prompts, parameters)

    monkeypatch.setattr(HFEngine, "generate", interrupted)
    # As it is in a terminal: what a shell starts in the background ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as exit_:
            run_command(main, ["--model", random_folder, "--out", str(tmp_path / "stopped"), *IN_CHUNKS])
    finally:
        signal.signal(signal.SIGINT, before)
    assert exit_.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted"
    check_that_it_goes_on(random_folder, tmp_path / "stopped", tmp_path / "whole", 4)


def test_a_file_cut_anywhere_leads_to_the_same_results(tmp_path):
    items = [f"é\u2028{number}" for number in range(5)]
    done = []

    def work(chunk):
        done.extend(chunk)
        return [{"item": item} for item in chunk]

    path = tmp_path / "results.jsonl"
    expected = run_in_chunks(path, items, 2, work, progress=False)
    whole = path.read_bytes()
    ends = [0] + [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        done.clear()
        assert run_in_chunks(path, items, 2, work, progress=False) == expected
        assert path.read_bytes() == whole
        kept = sum(end <= size for end in ends) - 1
        assert done == items[5 if kept == 5 else kept // 2 * 2 :]
    with pytest.raises(UsageError, match=r"5 lines for 4 examples"):
        run_in_chunks(path, items[:4], 2, work, progress=False)
    path.write_bytes(b"{\n" + whole[ends[1] :])
    with pytest.raises(UsageError, match=r"results.jsonl:1: no JSON"):
        run_in_chunks(path, items, 2, work, progress=False)
    with pytest.raises(UsageError, match="chunk_size is 0"):
        run_in_chunks(path, items, 0, work)


def test_a_folder_is_held_alone(tmp_path):
    with (
        run_folder(tmp_path, {"a": 1}),
        pytest.raises(UsageError, match="another run is at work"),
        run_folder(tmp_path, {"a": 1}),
    ):
        pass
    with run_folder(tmp_path, {"a": 1}):
        pass


def test_the_engine_is_opened_only_if_needed(random_folder):
    choice = EngineChoice(random_folder, device="cpu")
    opened = []

    def open_engine():
        opened.append(choice.open())
        return opened[-1]

    with EngineOnDemand(open_engine):
        pass
    assert not opened
    with EngineOnDemand(open_engine) as engine:
        for _ in range(2):
            engine.opened().generate(["Q"], SamplingParameters(max_tokens=1, seed=0))
    assert len(opened) == 1


REFUSED = [
    (["--task", "maths"], "task 'maths' is unknown; allowed are default, arithmetic, math"),
    (["--data", "nowhere.jsonl"], "data nowhere.jsonl is neither a file nor a folder"),
    (["--data", "."], "data . is a folder, but arithmetic is one file"),
    (["--pass_at", "1,x"], "pass_at is '1,x'; allowed are whole numbers from 1"),
    (["--pass_at", "4", "--num_samples", "2"], "pass@4"),
    (["--num_samples", "2"], "at temperature 0 all samples are the same"),
    (["--task", "alpaca_eval", "--num_samples", "2", "--temperature", "1"], "compares one answer"),
    (["--chunk_size", "0"], "chunk_size is 0"),
    (["--max_tokens", "0"], "max_tokens is 0"),
    (["--task", "math", "--prompt", "nowhere"], "prompt 'nowhere' is neither a file nor one of"),
    (["--task", "simple_safety_tests", "--judge_prompt", "judge_pairwise"], "it must have ['instruction', 'output']"),
    (["--task", "math", "--shots", "2"], "shots are MMLU's alone"),
    (["--model", "."], "model . is no Hugging Face model folder"),
]


@pytest.mark.parametrize(("flags", "message"), REFUSED)
def test_wrong_input_is_one_sentence(random_folder, tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    given = [] if "--model" in flags else ["--model", random_folder]
    with pytest.raises(SystemExit) as exit_:
        run_command(main, [*given, *flags, "--quiet"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "nothing was written"


def test_folders_are_named_by_what_determines_the_results(random_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--model", random_folder, "--max_examples", "2", "--max_tokens", "4", "--quiet", "--device", "cpu"]
    for more in ([], ["--chunk_size", "1"], ["--seed", "1"]):
        main([*flags, *more])
    assert len(list((tmp_path / "runs").glob("evaluate_arithmetic_*"))) == 2
