"""The benchmarks' files, our own examples, prompts and graders."""

import csv
import gzip
import json
import re
from collections import Counter

import pytest

from cs336_alignment.evaluation.prompting import make_prompting
from cs336_alignment.evaluation.task import Example, spread
from cs336_alignment.evaluation.tasks import TASKS, find_task
from cs336_alignment.evaluation.tasks.mmlu import few_shot_examples
from cs336_alignment.evaluation.tasks.mmlu import load as load_mmlu
from cs336_alignment.prompts import format_prompt, load_prompt, prompt_names
from cs336_alignment.records import json_records
from cs336_basics.command_line import UsageError

from .tiny_models import tiny_tokenizer


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def load(task, path):
    return find_task(task).load(path)


def test_math_500(shared_data):
    path = shared_data / "alignment" / "math500_test.jsonl"
    records, examples = lines(path), load("math", path)
    assert len(examples) == 500
    for record, example in zip(records, examples, strict=True):
        assert (example.id, example.gold) == (record["unique_id"], record["answer"])
        assert example.fields == {"question": record["problem"]}
        assert example.groups == {"subject": record["subject"], "level": str(record["level"])}


def test_gsm8k(shared_data):
    for name, number in (("gsm8k_test.jsonl", 1319), ("gsm8k_train.jsonl", 7473)):
        path = shared_data / "alignment" / name
        records, examples = lines(path), load("gsm8k", path)
        assert len(examples) == number
        for record, example in zip(records, examples, strict=True):
            assert example.fields["question"] == record["question"]
            assert float(example.gold.replace(",", "")) == float(
                re.findall(r"#### (.*)$", record["answer"])[0].replace(",", "")
            )


def test_gsm8k_grades_its_own_solutions_right(shared_data):
    path = shared_data / "alignment" / "gsm8k_test.jsonl"
    grade = find_task("gsm8k").graders["last_number"]
    wrong = [
        example.id
        for record, example in zip(lines(path), load("gsm8k", path), strict=True)
        if grade(example, record["answer"]).answer_reward != 1
    ]
    assert wrong == []


def test_mmlu(shared_data):
    folder = shared_data / "alignment" / "mmlu"
    examples = load("mmlu", folder)
    assert Counter(example.groups["subject"] for example in examples) == {
        "abstract_algebra": 100, "college_computer_science": 100, "high_school_geography": 198, "virology": 166,
    }  # fmt: skip
    with open(folder / "virology_test.csv", encoding="utf-8", newline="") as file:
        first = next(csv.reader(file))
    virology = load("mmlu", folder / "virology_test.csv")
    assert virology == [example for example in examples if example.groups["subject"] == "virology"]
    assert virology[0].fields == {"subject": "virology", "question": first[0], "options": first[1:5]}
    assert virology[0].gold == first[5]
    assert len(load_mmlu(folder, "dev")) == 20
    shots = few_shot_examples(folder, "high_school_geography", 5)
    assert shots == load_mmlu(folder / "high_school_geography_dev.csv")
    assert shots == few_shot_examples(folder / "high_school_geography_test.csv", "high_school_geography", 5)
    with pytest.raises(UsageError, match=r"6 shots.*'virology'.*has 5"):
        few_shot_examples(folder, "virology", 6)


def test_alpaca_eval(shared_data):
    path = shared_data / "alignment" / "alpaca_eval.jsonl"
    examples = load("alpaca_eval", path)
    assert len(examples) == 805
    assert Counter(example.groups["dataset"] for example in examples) == {
        "selfinstruct": 252, "oasst": 188, "koala": 156, "helpful_base": 129, "vicuna": 80,
    }  # fmt: skip
    record = lines(path)[3]
    assert examples[3].record == {
        "instruction": record["instruction"],
        "reference": record["output"],
        "reference_generator": "text_davinci_003",
    }


def test_simple_safety_tests(shared_data):
    examples = load("simple_safety_tests", shared_data / "alignment" / "simple_safety_tests.csv")
    assert len(examples) == len({example.id for example in examples}) == 100
    assert set(Counter(example.groups["harm_area"] for example in examples).values()) == {20}
    assert examples[0].id == "sst_001"
    assert examples[0].record["request"] == examples[0].fields["instruction"]


@pytest.mark.parametrize("name", TASKS)
def test_own_examples(name):
    """They are in the benchmark's format, and differ; every prompt that fits the task can be filled with them."""
    task = TASKS[name]
    examples = task.own_examples()
    assert len(examples) >= 6
    assert (
        len({example.id for example in examples}) == len({str(example.fields) for example in examples}) == len(examples)
    )
    prompting = make_prompting(task, None, None, None, tiny_tokenizer())
    assert len({prompting.prompt(example) for example in examples}) == len(examples)
    assert all((example.gold is None) == (not task.graders) for example in examples)


def test_the_default_task_is_arithmetic_held_out():
    assert find_task("default") is find_task("arithmetic")
    from cs336_alignment.default_task.tasks import split_of

    assert {split_of(example.fields["question"]) for example in find_task("default").own_examples()} == {"test"}


WRITTEN = {
    "math": ("x.jsonl", '{"problem": "1+1?", "answer": "2"}\n'),
    "gsm8k": ("x.jsonl", '{"question": "1+1?", "answer": "It is 2.\\n#### 2"}\n'),
    "mmlu": ("history_test.csv", "When?,1,2,3,4,C\n"),
    "countdown": ("x.jsonl", '{"numbers": [1, 2], "target": 3}\n'),
    "arithmetic": ("x.jsonl", '{"prompt": "Q: 1+1\\n<think>", "answer": "2"}\n'),
    "alpaca_eval": ("x.jsonl", '{"instruction": "Hi", "output": "Hello"}\n'),
    "simple_safety_tests": ("x.csv", "id,harm_area,prompts_final\n1,Fraud,Lie!\n"),
}
BROKEN = [
    ("math", '{"problem": "2+2?"}', r":2: no field 'answer'; the fields are 'problem'"),
    ("math", '{"problem": "2+2?", "answer": 4}', r":2: the field 'answer' is 4, but it must be a text"),
    ("math", '{"problem": ', r":2: no JSON \("),
    ("math", "[1]", r":2: a list instead of a JSON object"),
    ("gsm8k", '{"question": "2+2?", "answer": "It is 4."}', r':2: the answer does not end in "#### NUMBER"'),
    ("mmlu", "When?,1,2,3,4", r"history_test.csv:2: 5 columns instead of 6"),
    ("mmlu", "When?,1,2,3,4,E", r"history_test.csv:2: the answer is 'E'; allowed are A, B, C and D"),
    ("mmlu", 'When?,"1,2,3,4,A', r"history_test.csv:3: no CSV in UTF-8"),
    ("countdown", '{"numbers": [1, "2"], "target": 3}', r':2: "numbers" must be a list of integers'),
    ("countdown", '{"target": 3}', r':2: "numbers" must be a list of integers'),
    ("arithmetic", '{"answer": "2"}', r":2: no field 'question'"),
    ("alpaca_eval", '{"instruction": "Hi"}', r":2: no field 'output'"),
    ("simple_safety_tests", "2,Fraud", r":3: 2 columns under a header of 3"),
]


@pytest.mark.parametrize("name", WRITTEN)
def test_small_files(tmp_path, name):
    file_name, text = WRITTEN[name]
    path = tmp_path / file_name
    path.write_text("\ufeff" + text.replace("\n", "\r\n") + "\n", encoding="utf-8")
    (example,) = load(name, path)
    assert example.fields
    path.write_text("")
    with pytest.raises(UsageError, match="holds no examples"):
        load(name, path)


@pytest.mark.parametrize(("name", "line", "message"), BROKEN)
def test_broken_lines_are_named(tmp_path, name, line, message):
    file_name, text = WRITTEN[name]
    path = tmp_path / file_name
    path.write_text(text + line + "\n")
    with pytest.raises(UsageError, match=message):
        load(name, path)


def test_other_forms_of_files(tmp_path):
    records = [{"instruction": "Hi", "output": "Hello"}, {"instruction": "Ho", "output": "Hello"}]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps(records))
    packed = tmp_path / "lines.jsonl.gz"
    packed.write_bytes(gzip.compress("".join(json.dumps(one) + "\n\n" for one in records).encode()))
    assert load("alpaca_eval", listed) == load("alpaca_eval", packed)
    assert [place for place, _ in json_records(packed)] == [f"{packed}:1", f"{packed}:3"]
    listed.write_text(json.dumps([records[0], 5]))
    with pytest.raises(UsageError, match=re.escape("list.json:[1]: a int instead of a JSON object")):
        load("alpaca_eval", listed)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(UsageError, match="damaged archive"):
        load("alpaca_eval", packed)
    plain = tmp_path / "latin.jsonl"
    plain.write_bytes('{"instruction": "é"}'.encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin.jsonl:1: no UTF-8"):
        load("alpaca_eval", plain)


def test_mmlu_as_its_archive_unpacks(tmp_path):
    for split in ("dev", "val", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"history_{split}.csv").write_text(f"In {split}?,1,2,3,4,C\n")
    assert load("mmlu", tmp_path)[0].fields["question"] == "In test?"
    assert load_mmlu(tmp_path, "val")[0].fields["question"] == "In val?"
    for path in (tmp_path, tmp_path / "test", tmp_path / "test" / "history_test.csv"):
        assert few_shot_examples(path, "history", 1)[0].fields["question"] == "In dev?"
    with pytest.raises(UsageError, match=r"holds no MMLU files"):
        load("mmlu", tmp_path / "dev")
    (tmp_path / "history.csv").write_text("")
    with pytest.raises(UsageError, match=r"names no subject"):
        load("mmlu", tmp_path / "history.csv")


def test_prompts_are_the_templates():
    tokenizer = tiny_tokenizer()
    math, gsm8k, mmlu = find_task("math"), find_task("gsm8k"), find_task("mmlu")
    question = Example("0", {"question": "How {much} is it?"}, "3")
    prompting = make_prompting(math, None, None, None, tokenizer)
    assert prompting.prompt(question) == format_prompt("r1_zero", question="How {much} is it?")
    assert (prompting.answer_format, prompting.stop, prompting.keeps_stop) == ("r1_zero", ("</answer>",), True)
    prompting = make_prompting(math, "question_only", None, None, tokenizer)
    assert (prompting.answer_format, prompting.stop) == ("boxed", ())
    prompting = make_prompting(gsm8k, None, None, None, tokenizer)
    asked = format_prompt("gsm8k", question="How {much} is it?")
    assert prompting.prompt(question) == format_prompt("zero_shot_system_prompt", instruction=asked)
    assert (prompting.answer_format, prompting.stop, prompting.keeps_stop) == ("last_number", ("# Query:",), False)
    prompting = make_prompting(gsm8k, None, "alpaca_sft", None, tokenizer)
    assert prompting.prompt(question) + "R\n" == format_prompt("alpaca_sft", instruction=asked, response="R")
    prompting = make_prompting(gsm8k, "r1_zero_three_shot_gsm8k", None, None, tokenizer)
    assert prompting.prompt(question) == format_prompt("r1_zero_three_shot_gsm8k", question="How {much} is it?")
    assert prompting.answer_format == "r1_zero"
    prompting = make_prompting(mmlu, None, "none", None, tokenizer)
    shot, example = mmlu.own_examples()[:2]
    prompt = prompting.prompt(example, [shot])
    assert prompt == f"{format_prompt('mmlu', **shot.fields)} The correct answer is {shot.gold}.\n\n" + format_prompt(
        "mmlu", **example.fields
    )
    assert make_prompting(math, None, None, None, tokenizer).prompt(Example("0", {"prompt": "raw {"})) == "raw {"


def test_the_wrappers_fence_is_no_part_of_an_answer():
    wrapped = make_prompting(find_task("alpaca_eval"), None, None, None, tiny_tokenizer())
    assert wrapped.answer("Sure.\n```\n\n") == "Sure."
    assert wrapped.answer("Use\n```python\nx\n```\nand go on") == "Use\n```python\nx\n```\nand go on"
    bare = make_prompting(find_task("alpaca_eval"), None, "none", None, tiny_tokenizer())
    assert bare.answer("x\n```") == "x\n```"


def test_chat_templates_and_their_beginning_of_text():
    tokenizer = tiny_tokenizer()
    with pytest.raises(UsageError, match="no chat template"):
        make_prompting(find_task("math"), None, "chat", None, tokenizer)
    import copy

    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    prompting = make_prompting(find_task("math"), "question_only", "chat", None, chatty)
    prompt = prompting.prompt(Example("0", {"question": "2?"}, "2"))
    assert prompt == "[user] 2?\n[assistant] "
    assert chatty(prompt).input_ids.count(chatty.bos_token_id) == 1, "the tokenizer adds it"


def test_own_templates(tmp_path):
    path = tmp_path / "mine.prompt"
    path.write_text("Frage: {question}\nAntwort:")
    prompting = make_prompting(find_task("gsm8k"), str(path), None, None, tiny_tokenizer())
    assert prompting.prompt(Example("0", {"question": "Was?"})) == "Frage: Was?\nAntwort:"
    assert prompting.answer_format == "last_number"
    path.write_text("{question} {hint}")
    with pytest.raises(UsageError, match=r"the field 'hint', but examples have question"):
        make_prompting(find_task("gsm8k"), str(path), None, None, tiny_tokenizer()).prompt(
            Example("0", {"question": ""})
        )
    path.write_text("{question")
    with pytest.raises(UsageError, match="literal braces are doubled"):
        load_prompt(str(path))
    with pytest.raises(UsageError, match=r"'nowhere' is neither a file nor one of .*r1_zero"):
        load_prompt("nowhere")
    with pytest.raises(UsageError, match=r"wrapper 'gsm8k' must have the one field 'instruction'"):
        make_prompting(find_task("gsm8k"), None, "gsm8k", None, tiny_tokenizer())
    with pytest.raises(UsageError, match=r"mmlu cannot grade answers of the form 'boxed'"):
        make_prompting(find_task("mmlu"), None, None, "boxed", tiny_tokenizer())
    assert {"judge_pairwise", "judge_safety"} <= set(prompt_names())


GRADED = [
    ("math", "r1_zero", "\\frac{1}{2}", " so </think> <answer> 0.5 </answer>", ("0.5", 1, 1)),
    ("math", "r1_zero", "\\frac{1}{2}", " so </think> <answer> 2 </answer>", ("2", 1, 0)),
    ("math", "r1_zero", "\\frac{1}{2}", "0.5", (None, 0, 0)),
    ("math", "boxed", "\\frac{1}{2}", "it is $\\boxed{\\frac12}$", ("\\frac12", 1, 1)),
    ("gsm8k", "last_number", "1200", "That makes 3 * 400 = $1,200.00.", ("1200", 1, 1)),
    ("gsm8k", "last_number", "1200", "That makes 1201 dollars", ("1201", 1, 0)),
    ("gsm8k", "last_number", "1200", "No idea.", (None, 0, 0)),
    ("gsm8k", "r1_zero", "1,200", " so </think> <answer> 1200 </answer>", ("1200", 1, 1)),
    ("mmlu", "option_letter", "B", "The correct answer is B.", ("B", 1, 1)),
    ("mmlu", "option_letter", "B", "The correct answer is A.", ("A", 1, 0)),
    ("mmlu", "option_letter", "B", "I cannot say", (None, 0, 0)),
    ("mmlu", "r1_zero", "B", " so </think> <answer> B </answer>", ("B", 1, 1)),
    (
        "countdown",
        "r1_zero",
        '{"numbers": [3, 5, 7], "target": 22}',
        "</think> <answer> 3 * 5 + 7 </answer>",
        (None, 1, 1),
    ),
    ("countdown", "r1_zero", '{"numbers": [3, 5, 7], "target": 22}', "</think> <answer> 22 </answer>", (None, 1, 0)),
    ("arithmetic", "r1_zero", "12", "3+9=12 </think> <answer> 12 </answer>", ("12", 1, 1)),
]


@pytest.mark.parametrize(("task", "answer_format", "gold", "text", "expected"), GRADED)
def test_graders(task, answer_format, gold, text, expected):
    fields = {"subject": "s", "question": "q", "options": ["1", "2", "3", "4"]}
    grade = find_task(task).graders[answer_format](Example("0", fields, gold), text)
    parsed, format_reward, answer_reward = expected
    assert (grade.format_reward, grade.answer_reward) == (format_reward, answer_reward)
    if task == "gsm8k" and parsed:
        assert float(grade.parsed.replace(",", "")) == float(parsed)
    elif parsed or not format_reward:
        assert grade.parsed == parsed


def test_spread_takes_from_the_whole_list():
    examples = [Example(str(index), {}) for index in range(10)]
    assert [one.id for one in spread(examples, 4)] == ["0", "2", "5", "7"]
    assert spread(examples, 10) == spread(examples, 99) == spread(examples, None) == examples


def test_unknown_task():
    with pytest.raises(UsageError, match=r"'maths' is unknown; allowed are default, arithmetic, math"):
        find_task("maths")
