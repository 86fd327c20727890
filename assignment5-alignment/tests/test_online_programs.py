"""The programs as commands: questions and rewards by flags, the smoke run, the launch scripts' settings."""

import json
from pathlib import Path

import pytest

from cs336_alignment.drgrpo_grader import question_only_reward_fn
from cs336_alignment.expert_iteration import train as expert_iteration
from cs336_alignment.grading.countdown import countdown_ground_truth
from cs336_alignment.grpo import train as grpo
from cs336_alignment.grpo.config import GRPOConfig
from cs336_alignment.online.questions import held_out_questions, training_questions
from cs336_alignment.online.reward_functions import reward_function
from cs336_basics.command_line import UsageError

FOLDER = Path(__file__).parents[1]


def write_lines(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_questions_of_the_default_task_are_held_out_from_each_other():
    config = GRPOConfig(num_examples=50, eval_examples=20)
    train, held_out = training_questions(config), held_out_questions(config)
    assert (len(train), len(held_out)) == (50, 20)
    assert not {question.prompt for question in train} & {question.prompt for question in held_out}
    assert all(question.prompt.endswith("<think>") for question in train)


def test_questions_of_files(tmp_path):
    gsm8k = write_lines(tmp_path / "gsm8k.jsonl", {"question": "Two and two?", "answer": "2+2=4\n#### 4"})
    math = write_lines(tmp_path / "math.jsonl", {"problem": "Half?", "answer": "\\frac{1}{2}"})
    countdown = write_lines(tmp_path / "countdown.jsonl", {"numbers": [3, 5], "target": 8})
    prompts = write_lines(tmp_path / "prompts.jsonl", {"prompt": "as it stands", "answer": "7"})
    (question,) = training_questions(GRPOConfig(data=gsm8k, task="gsm8k", prompt="r1_zero_three_shot_gsm8k"))
    assert question.answer == "4"
    assert question.prompt.count("</answer>") >= 3
    assert "Two and two?" in question.prompt
    (question,) = training_questions(GRPOConfig(data=math, task="math", prompt="question_only"))
    assert (question.prompt.strip(), question.answer) == ("Half?", "\\frac{1}{2}")
    (question,) = training_questions(GRPOConfig(data=countdown, task="countdown"))
    assert question.answer == countdown_ground_truth([3, 5], 8)
    assert "[3, 5]" in question.prompt or "3, 5" in question.prompt
    (question,) = training_questions(GRPOConfig(data=prompts))
    assert (question.prompt, question.answer) == ("as it stands", "7")
    assert held_out_questions(GRPOConfig(data=prompts)) == []
    assert len(held_out_questions(GRPOConfig(data=prompts, val_data=math, task="math"))) == 1


def test_questions_that_cannot_be_used(tmp_path):
    math = write_lines(tmp_path / "math.jsonl", {"problem": "Half?", "answer": "1/2"})
    with pytest.raises(UsageError, match="task gsm8k needs its questions"):
        training_questions(GRPOConfig(task="gsm8k"))
    with pytest.raises(UsageError, match="there is no file nowhere"):
        training_questions(GRPOConfig(data="nowhere.jsonl"))
    with pytest.raises(UsageError, match="prompt countdown wants the fields numbers, target"):
        training_questions(GRPOConfig(data=math, task="math", prompt="countdown"))
    with pytest.raises(UsageError, match=r"math\.jsonl:1"):
        training_questions(GRPOConfig(data=math, task="gsm8k"))


def test_the_reward_fits_task_and_prompt():
    r1_zero = "so </think> <answer> 1/2 </answer>"
    assert reward_function(GRPOConfig())(r1_zero, "0.5")["reward"] == 1
    assert reward_function(GRPOConfig(prompt="question_only"))(r1_zero, "0.5")["reward"] == 0
    assert reward_function(GRPOConfig(reward="question_only")).func is question_only_reward_fn
    right = "so </think> <answer> 3 + 5 </answer>"
    assert reward_function(GRPOConfig(task="countdown"))(right, countdown_ground_truth([3, 5], 8))["reward"] == 1
    assert reward_function(GRPOConfig(thorough_grading=True))(r1_zero, "0.5")["reward"] == 1


@pytest.fixture(scope="module")
def where_models_are(tmp_path_factory):
    """The current directory of all smoke runs: there the default model is made, once."""
    return tmp_path_factory.mktemp("smoke")


@pytest.mark.slow
@pytest.mark.parametrize("program", [grpo, expert_iteration], ids=["grpo", "expert_iteration"])
def test_smoke_runs(program, where_models_are, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(where_models_are)
    program.main(["--smoke", "--no_wandb", "--out", str(tmp_path / "run")])
    assert f"model:      {tmp_path}/run/model" in capsys.readouterr().out
    entries = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {"eval_reward", "eval_response_length"} <= entries[0].keys()
    assert {"reward", "format_reward", "answer_reward", "response_length", "rollout_tokens_per_second"} <= entries[
        -1
    ].keys()
    rollout = json.loads((tmp_path / "run/rollouts.jsonl").read_text().splitlines()[0])
    assert "rollouts" in (tmp_path / "run/rollouts.html").read_text().lower()
    assert {"step", "prompt", "response", "answer", "reward", "length", "finish_reason"} <= rollout.keys()
