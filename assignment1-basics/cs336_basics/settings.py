"""Dataclasses whose fields are the flags of a program: one definition gives flag, help, check and default."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from cs336_basics.command_line import UsageError


def setting(default: Any, help: str, *, type: type | None = None, choices: Sequence[str] = (), shown: str = "") -> Any:
    """A field with what its command-line flag needs; `shown` describes a default of None."""
    metadata = {"help": help, "type": type or default.__class__, "choices": list(choices), "shown": shown}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The base of such dataclasses; each field is made by `setting`."""

    def check_types(self) -> None:
        """Take whole numbers where floats are wanted, and refuse every other mismatch.

        Raises:
            UsageError: a value has not its field's type, or is not among its choices.
        """
        for spec in fields(self):
            value, expected = getattr(self, spec.name), spec.metadata["type"]
            if value is None and spec.default is None:
                continue
            if expected is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, spec.name, value := float(value))
            if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
                raise UsageError(f"{spec.name} is {value!r}; it must be of type {expected.__name__}")
            choices = spec.metadata["choices"]
            if choices and value not in choices:
                raise UsageError(f"{spec.name} is {value!r}; allowed are {', '.join(choices)}")

    def check_range(self, name: str, low: float, high: float, below: bool = False) -> None:
        """Refuse a number outside [low, high); the message names the upper end if it is `below` that one.

        Raises:
            UsageError: naming the field, its value and what is allowed.
        """
        value = getattr(self, name)
        if not (low <= value < high):
            upper = f" and below {high}" if below else ""
            raise UsageError(f"{name} is {value}; allowed is any finite number of at least {low}{upper}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return asdict(self)

    @classmethod
    def add_flags(cls, parser: argparse.ArgumentParser) -> None:
        """Add a flag for each field; with `argument_default=SUPPRESS` one that is not given leaves no entry."""
        for spec in fields(cls):
            meta = spec.metadata
            assert spec.default is not MISSING
            default = spec.default if spec.default is not None else meta["shown"]
            text = f"{meta['help']} (default: {default})".replace("%", "%%")
            if meta["type"] is bool:
                parser.add_argument(f"--{spec.name}", action="store_true", help=text)
            else:
                parser.add_argument(f"--{spec.name}", type=meta["type"], choices=meta["choices"] or None, help=text)
