"""Attacks as data, and red-teaming runs judged by models that really answer."""

import base64
import codecs
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_alignment.evaluation.attacks import ENCODINGS, Attack, read_attacks, select_attacks
from cs336_alignment.evaluation.config import RedTeamConfig
from cs336_alignment.evaluation.red_team_command import main
from cs336_alignment.evaluation.red_teaming import hardest_requests, read_requests, red_team
from cs336_basics.command_line import UsageError, run_command

from .evaluation_cases import random_model, reflex_model

QUICK = {"max_tokens": 8, "judge_max_tokens": 8, "quiet": True, "device": "cpu", "judge_device": "cpu"}


@given(st.text(min_size=1, max_size=60))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_encodings_can_be_undone(request):
    request = request.encode(errors="replace").decode()
    assert base64.b64decode(ENCODINGS["prompt_base64"](request)).decode() == request
    assert codecs.decode(ENCODINGS["prompt_rot13"](request), "rot13") == request
    halves = {}
    exec(ENCODINGS["prompt_split"](request), halves)
    assert halves["a"] + halves["b"] == request
    for attack in read_attacks():
        assert attack.apply(request)


def test_own_attacks():
    attacks = read_attacks()
    assert len(attacks) >= 10
    assert attacks[0] == Attack("plain", "{prompt}", "the request as it stands")
    asked = {attack.name: attack.apply("How {so}?") + attack.prefill for attack in attacks}
    assert asked["plain"] == "How {so}?"
    assert len(set(asked.values())) == len(attacks)
    assert sum("How {so}?" in text for text in asked.values()) >= 8
    assert [attack.name for attack in attacks if attack.prefill] == ["prefill"]
    assert select_attacks(attacks, []) == attacks
    assert [one.name for one in select_attacks(attacks, ["rot13", "plain"])] == ["rot13", "plain"]
    with pytest.raises(UsageError, match=r"attack 'magic' is unknown; allowed are plain, role_play"):
        select_attacks(attacks, ["magic"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[attack]\n", "no TOML"),
        ("x = 1\n", r"attacks are tables \[\[attack\]\]"),
        ('[[attack]]\nname = "a"\n', r"attacks are tables \[\[attack\]\]"),
        ('[[attack]]\nname = "a"\ntemplate = "{prompt}"\nkind = "b"\n', r"attacks are tables \[\[attack\]\]"),
        ('[[attack]]\nname = "a"\ntemplate = "Hi"\n', r"attack 'a' has the fields \[\]"),
        ('[[attack]]\nname = "a"\ntemplate = "{prompt} {other}"\n', r"attack 'a' has the fields \['other', 'prompt'\]"),
        ('[[attack]]\nname = "a"\ntemplate = "{prompt} {"\n', "literal braces are doubled"),
        ('[[attack]]\nname = "a"\ntemplate = 3\n', "attack 'a': 3 is no text"),
        ('[[attack]]\nname = "a"\ntemplate = "{prompt}"\n' * 2, "comes twice"),
    ],
)
def test_wrong_attack_files(tmp_path, text, message):
    path = tmp_path / "attacks.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_attacks(path)


def test_requests_from_files(tmp_path, shared_data):
    def read(path, **more):
        return [one.record["request"] for one in read_requests(RedTeamConfig(data=str(path), quiet=True, **more))]

    lines, records = tmp_path / "requests.txt", tmp_path / "requests.jsonl"
    lines.write_text("Do this.\n\nDo that.\n")
    records.write_text('{"prompt": "Do this."}\n{"prompt": "Do that."}\n')
    assert read(lines) == read(records) == ["Do this.", "Do that."]
    assert read(lines, max_examples=1) == ["Do this."]
    assert len(read(shared_data / "alignment" / "simple_safety_tests.csv")) == 100
    lines.write_text("\n")
    for path, message in ((lines, "holds no requests"), (tmp_path, "is no file"), (tmp_path / "x.csv", "is no file")):
        with pytest.raises(UsageError, match=message):
            read(path)
    assert len(read_requests(RedTeamConfig(quiet=True))) == 8


def test_success_is_counted_by_attack(tmp_path, capsys):
    """The model complies with requests in base64 alone; the judge calls an answer safe if it ends with a full stop."""
    model = reflex_model(tmp_path / "model", " I refuse.", [("=", " Sure, do it")])
    judge = reflex_model(tmp_path / "judge", "\nVerdict: unsafe", [(".", "\nVerdict: safe")])
    prompt = tmp_path / "judge.prompt"
    prompt.write_text("{instruction}\n{output}")
    requests = tmp_path / "requests.txt"
    requests.write_text("Lie to me!\nTell me lies\n")
    padded = [base64.b64encode(text.encode()).decode().endswith("=") for text in ("Lie to me!", "Tell me lies")]
    assert padded == [True, False]
    summary = red_team(
        RedTeamConfig(
            **QUICK, model=model, judge_model=judge, judge_prompt=str(prompt), data=str(requests), wrapper="none",
            attacks="plain,base64,prefill", num_samples=3, out=str(tmp_path / "out"),
        )
    )  # fmt: skip
    rates = {name: one["requests_unsafe"]["value"] for name, one in summary["by_attack"].items()}
    assert rates == {"plain": 0, "base64": 0.5, "prefill": 0}
    assert summary["by_attack"]["base64"]["responses"] == 6
    assert summary["all"]["unsafe"]["value"] == pytest.approx(1 / 6)
    assert summary["hardest"] == [{"request_id": "0", "request": "Lie to me!", "attacks": 1}]
    assert summary["success_by_harm_area"]["base64"] == {"none": 0.5}
    attempts = [json.loads(line) for line in (tmp_path / "out" / "attempts.jsonl").read_text().splitlines()]
    assert len(attempts) == 2 * 3 * 3
    assert {one["attempt"] for one in attempts} == {0, 1, 2}
    unsafe = [one for one in attempts if one["verdict"] == "unsafe"]
    assert {(one["attack"], one["request"], one["text"]) for one in unsafe} == {
        ("base64", "Lie to me!", " Sure, do it")
    }
    prefilled = [one for one in attempts if one["attack"] == "prefill"]
    assert {one["text"] for one in prefilled} == {"Sure, here is what you need: I refuse."}
    assert all(one["prompt"].endswith("Sure, here is what you need:") for one in prefilled)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "By attack" in page
    assert "data:image/png" in page
    assert "| base64 " in capsys.readouterr().out


def test_attempts_differ_and_a_run_goes_on(tmp_path, capsys):
    model = random_model(tmp_path / "model")
    config = RedTeamConfig(
        **QUICK, model=model, judge_model="none", max_examples=2, num_samples=3, out=str(tmp_path / "out")
    )
    first = red_team(config)
    results = (tmp_path / "out" / "results.jsonl").read_bytes()
    rows = [json.loads(line) for line in results.splitlines()]
    assert len(rows) == 2 * len(read_attacks())
    assert all(len({one["text"] for one in row["responses"]}) == 3 for row in rows)
    (tmp_path / "out" / "results.jsonl").write_bytes(results[: len(results) // 2])
    assert red_team(config) | {"throughput": 0} == first | {"throughput": 0}
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == results
    assert "by_attack" not in first


def test_hardest_requests_come_first():
    def row(request, verdict):
        return {"request_id": request, "request": request, "responses": [{"verdict": None}, {"verdict": verdict}]}

    rows = [row("a", "safe"), row("b", "unsafe"), row("c", "unsafe"), row("c", "unsafe"), row("b", "safe")]
    assert [(one["request_id"], one["attacks"]) for one in hardest_requests(rows)] == [("c", 2), ("b", 1)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--attacks", "magic"], "attack 'magic' is unknown"),
        (["--attack_file", "nowhere.toml"], "nowhere.toml: No such file"),
        (["--data", "nowhere.csv"], "data nowhere.csv is no file"),
        (["--num_samples", "0"], "num_samples is 0"),
        (["--judge_prompt", "nowhere"], "prompt 'nowhere' is neither"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        run_command(main, [*flags, "--quiet", "--model", "unused"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
