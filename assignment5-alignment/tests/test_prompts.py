"""The prompt templates: their exact formats, their fields, and values with braces."""

import zipfile
from subprocess import run

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.drgrpo_grader import question_only_reward_fn, r1_zero_reward_fn
from cs336_alignment.grading.extraction import tagged_answer
from cs336_alignment.prompts import alpaca_prompt, format_prompt, load_prompt, prompt_fields, prompt_names
from cs336_basics.command_line import UsageError

EXPECTED_FIELDS = {
    "alpaca_eval": ["instruction"],
    "alpaca_sft": ["instruction", "response"],
    "countdown": ["numbers", "target"],
    "gsm8k": ["question"],
    "math": ["question"],
    "mmlu": ["subject", "question", "options"],
    "question_only": ["question"],
    "r1_zero": ["question"],
    "r1_zero_three_shot_gsm8k": ["question"],
    "simple_safety_tests": ["instruction"],
    "zero_shot_system_prompt": ["instruction"],
}


def test_every_prompt_has_its_fields():
    assert set(EXPECTED_FIELDS) <= set(prompt_names())
    for name, fields in EXPECTED_FIELDS.items():
        assert prompt_fields(name) == fields


def test_formats_that_data_and_rewards_depend_on():
    assert load_prompt("alpaca_sft") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:\n{response}\n"
    )
    for name in ("r1_zero", "r1_zero_three_shot_gsm8k"):
        prompt = load_prompt(name)
        assert prompt.startswith("A conversation between User and Assistant. The User asks a question, and the Assist")
        assert "<think> reasoning process here </think> <answer> answer here </answer>.\nUser: " in prompt
        assert prompt.endswith("\nUser: {question}\nAssistant: <think>")
    assert load_prompt("question_only") == "{question}"
    assert format_prompt("gsm8k", question="1+1?") == "1+1?\nAnswer:"
    assert format_prompt("math", question="1+1?").endswith(r"\boxed{}.")
    mmlu = format_prompt("mmlu", subject="virology", question="How many?", options=["1", "2", "3", "4"])
    assert '"The correct answer is _"' in mmlu
    assert mmlu.endswith("\n\nQuestion: How many?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:")
    system = format_prompt("zero_shot_system_prompt", instruction="Hello")
    assert system.startswith("# Instruction\n")
    assert system.endswith("\n\n# Query:\n```Hello```\n\n# Answer:\n```")


def test_the_alpaca_prompt_ends_where_the_response_begins():
    instruction, response = "Say {this} and\n{response}", "{that}\n"
    whole = format_prompt("alpaca_sft", instruction=instruction, response=response)
    assert alpaca_prompt(instruction) + response + "\n" == whole


def test_the_three_shots_are_right_and_in_the_format_that_is_rewarded():
    shots = load_prompt("r1_zero_three_shot_gsm8k").split("\nAssistant: <think>")[1:-1]
    assert len(shots) == 3
    for shot in shots:
        response = shot.partition("\nUser:")[0]
        answer = tagged_answer(response)
        assert r1_zero_reward_fn(response, answer)["reward"] == 1.0
        assert f"= {answer} " in response  # the last step of the thoughts


def test_the_example_answers_of_the_prompts_earn_no_reward():
    assert question_only_reward_fn(format_prompt("math", question="?"), "72")["reward"] == 0.0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text())
def test_values_stand_as_they_are(text):
    assert format_prompt("question_only", question=text) == text
    assert format_prompt("r1_zero", question=text) == load_prompt("r1_zero").replace("{question}", text)
    assert text in format_prompt("alpaca_sft", instruction=text, response="{instruction}")


@pytest.mark.parametrize("name", ["r2_zero", "", "../README", "r1_zero.prompt"])
def test_an_unknown_name_is_an_error_that_lists_the_names(name):
    with pytest.raises(UsageError, match=r"is neither a file nor one of .*alpaca_eval.*r1_zero"):
        load_prompt(name)


def test_missing_and_unknown_fields_are_errors():
    with pytest.raises(UsageError, match=r"takes the fields \['question'\], not \[\]"):
        format_prompt("r1_zero")
    with pytest.raises(UsageError, match=r"not \['question', 'system'\]"):
        format_prompt("r1_zero", question="?", system="!")
    with pytest.raises(UsageError, match="more items"):
        format_prompt("mmlu", subject="x", question="?", options=["1", "2", "3"])


@pytest.mark.slow
def test_the_wheel_holds_the_prompts(tmp_path, request):
    folder = request.path.parent.parent
    run(["uv", "build", "--wheel", "--no-build-isolation", "--offline", "-q", "-o", tmp_path, folder], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"cs336_alignment/prompts/{name}.prompt" for name in prompt_names()} <= set(names)
