"""The page of a run's rollouts: what is read and drawn, and the page in headless Chromium."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from cs336_alignment.rollout_log import write_rollout_page
from cs336_alignment.rollout_log.command import main, newest_run
from cs336_alignment.rollout_log.reading import read_rollouts
from cs336_basics.command_line import UsageError

ATTACK = "window.attacked = true; fetch('https://outside.example/')"
HOSTILE = [
    f"</script><script>{ATTACK}</script> <!--<script>",
    f'<img src=\'https://outside.example/x.png\' onerror="{ATTACK}"> <svg onload="{ATTACK}">',
    f"{{{{ 7 * 7 }}}} {{% raw %}} ${{{ATTACK}}} `${{1}}` \\u003cscript>{ATTACK}</script>",
    "reversed \u202egnp.exe\u202c, hidden \u200b, \x00 nul, \ud800 lone",
    "x" * 100_000,
    "</think> <answer> <b onclick='" + ATTACK + "'>bold</b> </answer>",
]


def _record(step, prompt, response, reward=0.0, **more):
    return {
        "step": step, "prompt": prompt, "response": response, "answer": "42", "reward": reward,
        "format_reward": 1.0, "answer_reward": reward, "advantage": reward - 0.5, "length": len(response.split()),
        "finish_reason": "stop", **more,
    }  # fmt: skip


def _write(folder, records):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rollouts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def _records(num_steps=4, num_prompts=3, group=4, seed=0):
    """Rewards grow with the steps; every response says which it is."""
    draw = random.Random(seed)
    return [
        _record(
            step,
            f"Q: {10 * step + prompt}+1\n<think>",
            f" step {step} prompt {prompt} member {member} </think> <answer> 42 </answer>",
            reward=float(draw.random() < (step + 1) / (num_steps + 1)),
            advantage=round(draw.uniform(-1, 1), 3),
            length=draw.randrange(5, 60),
        )
        for step in range(num_steps)
        for prompt in range(num_prompts)
        for member in range(group)
    ]


# ---- reading --------------------------------------------------------------------------------------------------------


def test_means_of_steps_are_those_of_the_file(tmp_path):
    records = _records()
    log = read_rollouts(_write(tmp_path, records), max_rollouts=10_000)
    assert log.total == len(records) == len(log.rollouts)
    for step, totals in log.steps.items():
        mine = [record for record in records if record["step"] == step]
        assert totals.rollouts == len(mine)
        for name in ("reward", "length", "format_reward"):
            assert totals.mean(name) == pytest.approx(sum(record[name] for record in mine) / len(mine))


def test_too_many_rollouts_are_drawn_in_whole_groups_and_curves_stay_over_all(tmp_path):
    records = _records(num_steps=20, num_prompts=10)
    folder = _write(tmp_path, records)
    log = read_rollouts(folder, max_rollouts=100)
    assert 100 - 4 < len(log.rollouts) <= 100
    assert log.total == len(records)
    groups = {}
    for rollout in log.rollouts:
        groups.setdefault((rollout.step, rollout.prompt), []).append(rollout)
    assert {len(group) for group in groups.values()} == {4}
    assert len({step for step, _ in groups}) > 5  # from all over the run
    assert log.rollouts == read_rollouts(folder, max_rollouts=100).rollouts
    page = write_rollout_page(folder, max_rollouts=100).read_text()
    assert "700 were left out" in page


def test_damaged_lines_are_counted_and_missing_values_are_none(tmp_path):
    (tmp_path / "rollouts.jsonl").write_text(
        '{"step": 1, "response": "only this"}\n{"step": 1, "respo\n[1]\n\n{"response": 3}\n'
        '{"step": 2, "prompt": "p", "response": "r", "reward": NaN, "length": 1e400, "answer": {"target": 3}}\n'
    )
    log = read_rollouts(tmp_path, max_rollouts=10)
    assert log.num_damaged == 3
    first, second = log.rollouts
    assert (first.response, first.prompt, first.reward, first.length) == ("only this", "", None, None)
    assert (second.reward, second.length, second.answer) == (None, None, '{"target": 3}')
    assert "3 damaged lines" in write_rollout_page(tmp_path).read_text()


def test_a_run_without_rollouts_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"there is no .*rollouts\.jsonl"):
        write_rollout_page(tmp_path)
    with pytest.raises(UsageError, match="there is no run"):
        newest_run(tmp_path)
    with pytest.raises(UsageError, match="--max_rollouts 0 is too few"):
        main([str(tmp_path), "--max_rollouts", "0"])


def test_the_command_takes_the_newest_run(tmp_path):
    _write(tmp_path / "runs" / "one", _records(1))
    script = Path(__file__).parents[1] / "scripts" / "browse_rollouts.py"
    done = subprocess.run([sys.executable, script, "--quiet"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / done.stdout.strip()).read_text().startswith("<!doctype html>")


# ---- the page in a browser ------------------------------------------------------------------------------------------


@pytest.fixture
def open_page(browser):
    """Opens a page offline; at the end nothing may have been fetched, run, or complained of."""
    pages, problems, requests = [], [], []

    def open_(path, view=""):
        page = browser.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.resolve().as_uri() + view)
        pages.append(page)
        return page

    yield open_
    attacked = [page.evaluate("window.attacked") for page in pages]
    for page in pages:
        page.close()
    assert problems == []
    assert attacked == [None] * len(pages)
    assert all(url.startswith("file://") for url in requests)


def test_filters_order_and_search(tmp_path, open_page):
    records = _records()
    page = open_page(write_rollout_page(_write(tmp_path / "run", records)))
    expect(page.locator("#count")).to_have_text("48 of 48 rollouts")
    expect(page.locator("article")).to_have_count(25)
    page.locator("#more").click()
    expect(page.locator("article")).to_have_count(48)

    right = [record for record in records if record["reward"] > 0]
    page.select_option("#outcome", "right")
    expect(page.locator("#count")).to_have_text(f"{len(right)} of 48 rollouts")
    page.select_option("#step", "2")
    of_step = [record for record in right if record["step"] == 2]
    expect(page.locator("#count")).to_have_text(f"{len(of_step)} of 48 rollouts")
    page.select_option("#order", "-length")
    shown = page.locator("article pre.response").all_inner_texts()
    expected = [record["response"] for record in sorted(of_step, key=lambda record: -record["length"])]
    lengths = {record["response"]: record["length"] for record in records}
    assert [lengths[text] for text in shown] == [lengths[text] for text in expected]

    page.select_option("#outcome", "")
    page.select_option("#step", "")
    page.fill("#search", "STEP 3 prompt 1 member 2")
    expect(page.locator("#count")).to_have_text("1 of 48 rollouts")
    page.keyboard.press("Escape")
    expect(page.locator("#count")).to_have_text("48 of 48 rollouts")


def test_groups_show_all_responses_to_a_prompt_with_advantages(tmp_path, open_page):
    records = _records()
    path = write_rollout_page(_write(tmp_path, records))
    page = open_page(path)
    page.keyboard.press("g")
    expect(page.locator("#count")).to_have_text("12 of 12 groups")
    first = page.locator("article").first
    group = records[:4]
    assert first.locator("pre.response").all_inner_texts() == [record["response"] for record in group]
    cells = first.locator("tr td:nth-child(2)").all_inner_texts()
    assert [float(cell.replace("−", "-")) for cell in cells] == [record["advantage"] for record in group]
    mean = sum(record["reward"] for record in group) / 4
    expect(first.locator("h2")).to_contain_text(f"mean reward {mean:g}")

    page.select_option("#outcome", "mixed")
    groups = [records[start : start + 4] for start in range(0, len(records), 4)]
    mixed = sum(len({record["reward"] for record in group}) > 1 for group in groups)
    expect(page.locator("#count")).to_have_text(f"{mixed} of 12 groups")
    # The view stands in the address and opens again.
    again = open_page(path, page.url[page.url.index("#") :])
    expect(again.locator("#count")).to_have_text(f"{mixed} of 12 groups")


def test_steps_by_key_and_by_a_click_on_a_curve(tmp_path, open_page):
    page = open_page(write_rollout_page(_write(tmp_path, _records())))
    expect(page.locator("#curves svg")).to_have_count(3)
    page.keyboard.press("]")
    page.keyboard.press("]")
    expect(page.locator("#step")).to_have_value("1")
    expect(page.locator("#count")).to_have_text("12 of 48 rollouts")
    page.keyboard.press("[")
    expect(page.locator("#step")).to_have_value("0")
    box = page.locator("#curves svg").first.bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    expect(page.locator("#step")).to_have_value("3")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("p")
    expect(page.locator("#prompt")).to_be_visible()
    expect(page.locator("#count")).to_have_text("4 of 48 rollouts")


def test_thought_and_answer_are_marked(tmp_path, open_page):
    records = [_record(0, "Q: 6*7\n<think>", " six sevens </think> <answer> 42 </answer>", 1.0)]
    page = open_page(write_rollout_page(_write(tmp_path, records)))
    response = page.locator("article pre.response")
    expect(response.locator(".think")).to_have_text(" six sevens ")
    expect(response.locator(".answer")).to_have_text(" 42 ")
    assert response.locator(".tag").all_inner_texts() == ["</think>", "<answer>", "</answer>"]


def test_hostile_text_is_shown_and_never_run(tmp_path, open_page):
    records = [_record(0, text, text, answer=text, finish_reason=text) for text in HOSTILE]
    page = open_page(write_rollout_page(_write(tmp_path, records), title=HOSTILE[0]))
    expect(page.locator("article")).to_have_count(len(HOSTILE))
    shown = page.locator("article pre.response").all_inner_texts()
    assert shown[0] == HOSTILE[0]
    assert shown[1] == HOSTILE[1]
    assert shown[2] == HOSTILE[2]
    assert all(code in shown[3] for code in ("U+202E", "U+0000", "U+D800"))
    assert "96,000 more characters" in shown[4]
    assert page.locator("article img, article svg, article b[onclick], article script").count() == 0
    page.keyboard.press("g")
    expect(page.locator("article")).to_have_count(len(HOSTILE))
    assert page.locator("article img, article svg, article b[onclick], article script").count() == 0


def test_fifty_thousand_rollouts_open(tmp_path, open_page):
    records = _records(num_steps=100, num_prompts=50, group=10)
    page = open_page(write_rollout_page(_write(tmp_path, records)))
    expect(page.locator("#count")).to_have_text("50,000 of 50,000 rollouts")
    page.fill("#search", "step 77 prompt 33 member 9 ")
    expect(page.locator("#count")).to_have_text("1 of 50,000 rollouts")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_color_schemes(tmp_path, open_page, scheme):
    page = open_page(write_rollout_page(_write(tmp_path, _records(2))))
    page.emulate_media(color_scheme=scheme)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = page.evaluate("getComputedStyle(document.body).color")
    brightness = [sum(map(int, color[4:-1].split(","))) for color in (background, ink)]
    assert (brightness[0] > brightness[1]) == (scheme == "light")


def test_an_empty_log_makes_a_page(tmp_path, open_page):
    page = open_page(write_rollout_page(_write(tmp_path, [])))
    expect(page.locator("#count")).to_have_text("0 of 0 rollouts")
