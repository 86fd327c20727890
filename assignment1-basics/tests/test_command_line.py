"""Errors of commands: one line and the right exit code."""

import errno
import os

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
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: No space left on device\n"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), 2, "error: a/b: Read-only file system\n"),
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


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit) as stop:
        run_command(lambda argv: os.mkdir(argv[0]), [str(tmp_path / "taken")])
    assert stop.value.code == 2
    assert "taken: File exists" in capsys.readouterr().err


def test_an_error_that_is_no_files_fault_keeps_its_traceback():
    with pytest.raises(ConnectionResetError):
        run_command(raising(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")), [])


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(raising(ZeroDivisionError()), [])
