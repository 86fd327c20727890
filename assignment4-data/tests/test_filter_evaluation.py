"""The measurements: counts, intervals, tables, the command, and that the filters do what the table says."""

import csv

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cs336_basics.command_line import UsageError, run_command
from cs336_data import filter_evaluation
from cs336_data.evaluation_command import main
from cs336_data.filter_evaluation import (
    HEADER,
    Case,
    MissingData,
    Settings,
    evaluate,
    list_errors,
    measure,
)
from cs336_systems.result_table import ResultTable


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_counts_and_shares(pairs):
    one = measure("f", "x", "d", (Case(*pair, text=str(pair)) for pair in pairs))
    found = [positive for positive, found in pairs if found]
    positives = [found for positive, found in pairs if positive]
    assert one.precision == (sum(found) / len(found) if found else None)
    assert one.recall == (sum(positives) / len(positives) if positives else None)
    assert [case.positive == case.found for case in one.errors] == [False] * sum(a != b for a, b in pairs)
    row = dict(zip(HEADER, one.row(), strict=True))
    assert row["positive"] == len(positives)
    assert row["negative"] == len(pairs) - len(positives)
    assert row["missed"] + row["false alarms"] == len(one.errors)


def test_the_filters_measure_well():
    measurements, left_out = evaluate(["rules", "language", "pii", "pii_pages"], Settings(num_pages=150))
    assert not left_out
    table = {(one.filter, one.finds): one for one in measurements}
    for filter_name, finds, precision, recall in (
        ("c4_lines", "pages without prose", 0.97, 0.7),
        ("gopher (course)", "pages without prose", 0.97, 0.9),
        ("gopher (paper)", "pages without prose", 0.97, 0.95),
        ("repetition", "keywords over and over", 0.8, 0.9),
        ("pii", "email addresses", 0.99, 0.99),
        ("pii", "phone numbers", 0.99, 0.99),
        ("pii", "IPv4 addresses", 0.99, 0.99),
        ("pii", "IPv6 addresses (option)", 0.99, 0.99),
        ("pii", "emails", 0.97, 0.97),
        ("pii", "phones", 0.97, 0.97),
        ("pii", "ips", 0.97, 0.97),
    ):
        one = table[filter_name, finds]
        assert one.precision >= precision, list_errors(one, 5)
        assert one.recall >= recall, list_errors(one, 5)
    (language,) = (one for one in measurements if one.filter.startswith("language"))
    assert language.precision >= 0.95
    assert language.recall >= 0.95
    # What the table says about its limits.
    assert table["pii", "disguised email addresses"].recall == 0
    assert 0.6 < table["pii", "foreign numbers without country code"].recall < 1


def test_default_chain_keeps_articles():
    (chain,), _ = evaluate(["chain"], Settings(num_pages=150))
    assert chain.precision >= 0.95
    assert chain.recall >= 0.95


def test_udhr(shared_data):
    measurements, left_out = evaluate(["udhr"], Settings(shared_data=shared_data))
    assert not left_out
    assert measurements[0].precision >= 0.99
    assert measurements[0].recall >= 0.99


def test_evaluations_without_their_data_are_left_out(tmp_path):
    for folder in (None, tmp_path):
        measurements, left_out = evaluate(["udhr", "udhr_languages"], Settings(shared_data=folder))
        assert not measurements
        assert [line.split()[0] for line in left_out] == ["udhr", "udhr_languages"]
        assert "text/udhr2.zip" in left_out[0]
    with pytest.raises(MissingData):
        Settings().shared_file("x")


def test_command_prints_and_writes_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CS336_DATA", raising=False)
    main(["pii", "udhr", "--errors", "2", "--output", "table.csv"])
    printed = capsys.readouterr().out
    assert "| pii " in printed
    assert "udhr left out" in printed
    assert printed.count("  missed: ") == 4  # two of each spelling that is known to be missed
    with open("table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    emails = rows[0]
    assert emails["finds"] == "email addresses"
    assert float(emails["recall"]) == (int(emails["positive"]) - int(emails["missed"])) / int(emails["positive"])
    main(["pii", "--output", "table.md"])
    assert (tmp_path / "table.md").read_text() in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["no_such"], ["--pages", "0"], ["--output", "table.txt"], ["--shared_data", "no/such/folder"]]
)
def test_command_says_what_is_wrong(argv, capsys):
    with pytest.raises(SystemExit, match="2"):
        run_command(main, argv)
    assert argv[-1] in capsys.readouterr().err


def test_evaluations_exist():
    with pytest.raises(UsageError, match="'x'"):
        evaluate(["x"], Settings())
    empty = ResultTable(HEADER, [])
    assert filter_evaluation.EVALUATIONS
    assert all(column in empty.markdown() for column in HEADER)
