"""Errors of commands: one line and the right exit code."""

import errno
import os
import subprocess
import sys

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


@pytest.mark.parametrize("work", ["print('line\\n' * lines)", "sys.exit(print('line\\n' * lines))"])
@pytest.mark.parametrize("lines", [10, 1_000_000], ids=["still buffered", "more than a pipe holds"])
def test_a_reader_that_has_seen_enough_ends_the_command_quietly(work, lines):
    program = (
        "import sys; from cs336_basics.command_line import run_command\n"
        f"def main(argv):\n    lines = {lines}\n    sys.stdin.read()\n    {work}\n"
        "run_command(main, [])"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], **pipes) as process:
        process.stdout.close()
        process.stdin.close()  # only now does it begin
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_another_broken_pipe_keeps_its_traceback():
    with pytest.raises(BrokenPipeError):
        run_command(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")), [])
