"""What every command of the project does alike: one-sentence errors, exit codes, Ctrl-C.

A command is a function `main(argv) -> None`. It raises `UsageError` for bad input; `run_command` turns that into one
line on standard error and exit code 2, and Ctrl-C into exit code 130, without a traceback.
"""

import sys
from collections.abc import Callable, Sequence


class UsageError(ValueError):
    """Bad input from the user. Its message is one sentence that names the offending value and what is allowed."""


def run_command(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run `main(argv)` as the body of a command-line program; leaves by `SystemExit` on an error.

    Args:
        main: the program; it parses `argv` (None: `sys.argv[1:]`).
        argv: the arguments without the program's name.

    Raises:
        SystemExit: with code 2 after a `UsageError` or a missing or unreadable file, 130 after Ctrl-C.
    """
    try:
        main(argv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
