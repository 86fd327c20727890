"""What every command of the project does alike: one-sentence errors, exit codes, Ctrl-C.

A command is a function `main(argv) -> None`. It raises `UsageError` for bad input; `run_command` turns that into one
line on standard error and exit code 2, and Ctrl-C into exit code 130, without a traceback. So it does with what the
operating system says of a file. A reader that has seen enough (`| head`) ends it without a word.
"""

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TextIO

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
"""What writing to an open file says; these errors name no file."""


class UsageError(ValueError):
    """Bad input from the user. Its message is one sentence that names the offending value and what is allowed."""


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run `main(argv)` as the body of a command-line program; leaves by `SystemExit` on an error.

    Args:
        main: the program; it parses `argv` (None: `sys.argv[1:]`).
        argv: the arguments without the program's name.

    Raises:
        SystemExit: with code 2 after a `UsageError`, an `OSError` that names a file, or a full disk; 130 after Ctrl-C;
            141 when nobody reads the output any more.
    """
    try:
        try:
            _run(main, argv)
        finally:
            sys.stdout.flush()  # Python does it again at exit, where nothing can be caught
    except BrokenPipeError:
        abandoned = [stream for stream in (sys.stdout, sys.stderr) if _has_lost_its_reader(stream)]
        if not abandoned:
            raise  # another pipe, such as one between processes
        for stream in abandoned:
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None


def _run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None) -> None:
    try:
        main(argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.filename is None and error.errno not in _DISK_FULL:
            raise  # no file's fault: a bug, or a broken connection
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"error: {place}{error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _has_lost_its_reader(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))
