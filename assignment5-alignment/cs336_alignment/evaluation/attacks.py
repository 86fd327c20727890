"""Attacks: transformations of a request that are meant to get an answer a model ought not to give.

They are data (`attacks.toml`): templates around a request, or around an encoding of it.
"""

import base64
import codecs
import json
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Formatter

from cs336_basics.command_line import UsageError


def _split(prompt: str) -> str:
    middle = len(prompt) // 2
    first, second = (json.dumps(half, ensure_ascii=False) for half in (prompt[:middle], prompt[middle:]))
    return f"a = {first}; b = {second}"


ENCODINGS: dict[str, Callable[[str], str]] = {
    "prompt": str,
    "prompt_base64": lambda prompt: base64.b64encode(prompt.encode()).decode(),
    "prompt_rot13": lambda prompt: codecs.encode(prompt, "rot13"),
    "prompt_split": _split,
}
"""The fields of a template, each from the request."""


@dataclass(frozen=True)
class Attack:
    """A way of asking.

    Attributes:
        name: as flags and tables call it.
        template: the text around the request, with fields of `ENCODINGS`.
        about: what it does.
        prefill: what the answer is made to begin with.

    Raises:
        UsageError: the template has other fields, or none.
    """

    name: str
    template: str
    about: str = ""
    prefill: str = ""

    def __post_init__(self) -> None:
        for value in (self.name, self.template, self.about, self.prefill):
            if not isinstance(value, str):
                raise UsageError(f"attack {self.name!r}: {value!r} is no text")
        try:
            fields = {field for _, field, _, _ in Formatter().parse(self.template) if field is not None}
        except ValueError as error:
            raise UsageError(f"attack {self.name!r}: {error}; literal braces are doubled") from None
        if not fields or not fields <= ENCODINGS.keys():
            raise UsageError(
                f"attack {self.name!r} has the fields {sorted(fields)}; allowed are one or more of {list(ENCODINGS)}"
            )

    def apply(self, prompt: str) -> str:
        """The request in this attack's form."""
        return self.template.format(**{name: encode(prompt) for name, encode in ENCODINGS.items()})


def read_attacks(path: Path | None = None) -> list[Attack]:
    """The attacks of a TOML file: a list of tables `attack` with `name`, `template` and perhaps `about`, `prefill`.

    Args:
        path: the file; None for our own.

    Raises:
        UsageError: the file is not in that format, or a name comes twice.
    """
    text = _own_attacks() if path is None else path.read_text(encoding="utf-8")
    try:
        tables = tomllib.loads(text).get("attack")
        attacks = [Attack(**table) for table in tables]
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: no TOML ({error})") from None
    except TypeError:
        raise UsageError(
            f"{path}: attacks are tables [[attack]] with name, template and perhaps about, prefill"
        ) from None
    names = [attack.name for attack in attacks]
    if len(set(names)) < len(names):
        raise UsageError(f"{path}: a name of an attack comes twice in {', '.join(names)}")
    return attacks


def select_attacks(attacks: Sequence[Attack], names: Sequence[str]) -> list[Attack]:
    """The attacks of these names, all if there are none.

    Raises:
        UsageError: a name is unknown.
    """
    known = {attack.name: attack for attack in attacks}
    for name in names:
        if name not in known:
            raise UsageError(f"attack {name!r} is unknown; allowed are {', '.join(known)}")
    return [known[name] for name in names] if names else list(attacks)


def _own_attacks() -> str:
    return files("cs336_alignment.evaluation").joinpath("attacks.toml").read_text(encoding="utf-8")
