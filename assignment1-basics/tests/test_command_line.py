"""Errors of commands: one line and the right exit code."""

import pytest

from cs336_basics.command_line import UsageError, run_command


def raising(error: BaseException):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            UsageError("vocab_size is 3; at least 257 is allowed"),
            2,
            "error: vocab_size is 3; at least 257 is allowed\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_exit_codes(error, code, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(raising(error), [])
    assert stop.value.code == code
    assert capsys.readouterr().err == message


def test_a_missing_file_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(lambda argv: open(argv[0]).close(), [str(tmp_path / "absent.txt")])
    assert stop.value.code == 2
    assert "absent.txt: No such file" in capsys.readouterr().err


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])
