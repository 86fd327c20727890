"""The server's program: users, keys, and one clear sentence for what cannot be."""

import socket

import pytest

from cs336_basics.command_line import UsageError
from cs336_scaling.server.accounts import find_account
from cs336_scaling.server.command import build_parser, main
from cs336_scaling.server.database import Database


def test_a_key_is_printed_once_and_works(tmp_path, capsys):
    main(["add-user", "ada", "--data-dir", str(tmp_path), "--budget-seconds", "100"])
    key = capsys.readouterr().out.strip()
    url = f"sqlite:///{tmp_path}/training_api.sqlite"
    account = find_account(Database(url), key)
    assert (account.name, account.budget_seconds, account.budget_flops) == ("ada", 100.0, 2 * 10**18)
    main(["list-users", "--database", url])
    listed = capsys.readouterr().out
    assert listed == "ada\t2e+18 FLOPs\t100 s\n"
    assert key not in listed


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["serve", "--speed", "0"], "speed is 0.0; allowed is any number above 0"),
        (["serve", "--workers", "-1"], "workers is -1"),
        (["serve", "--threads", "0"], "threads is 0"),
        (["serve", "--port", "70000"], "cannot listen on 127.0.0.1 port 70000"),
        (["serve", "--sequence-length", "100"], "allowed are the divisors of 512"),
        (["serve", "--database", "sqlite://"], "is in memory"),
        (["worker", "--lease-seconds", "0"], "lease_seconds is 0.0"),
        (["add-user", "eve", "--budget-flops", "1e20"], "budget_flops is 1e+20; allowed is at most 9e+18"),
        (["add-user", "eve", "--budget-seconds", "inf"], "budget_seconds is inf; allowed is at most 1e+12"),
        (["add-user", "", "--budget-flops", "1"], "the user's name is ''"),
    ],
)
def test_bad_flags_are_refused_with_a_sentence(tmp_path, flags, sentence):
    data = [] if "--database" in flags else ["--data-dir", str(tmp_path)]
    with pytest.raises(UsageError) as refused:
        main([*flags, *data])
    assert sentence in str(refused.value)


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1 port {port}.*--port"):
            main(["serve", "--port", str(port), "--data-dir", str(tmp_path)])


@pytest.mark.parametrize("command", ["serve", "add-user", "list-users", "worker"])
def test_help_lists_flags_with_defaults(command, capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--data-dir" in text
    assert "server_data" in text
