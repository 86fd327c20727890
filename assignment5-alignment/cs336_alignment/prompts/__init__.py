"""Prompt templates: text files with named fields, shipped inside the package.

A template is the text of `NAME.prompt` exactly as it stands, its last newline included where it has one. Fields stand
in single braces and literal braces are doubled, as in `str.format`.
"""

from importlib.resources import files
from pathlib import Path
from string import Formatter

from cs336_basics.command_line import UsageError

ALPACA = "alpaca_sft"
"""The template of instruction data: an instruction, and the response to it."""
_SUFFIX = ".prompt"


def prompt_names() -> list[str]:
    """The names of all templates, sorted."""
    return sorted(file.name.removesuffix(_SUFFIX) for file in files(__name__).iterdir() if file.name.endswith(_SUFFIX))


def load_prompt(name: str) -> str:
    """One of our templates by name, or a template file by its path; its fields are still in braces.

    Raises:
        UsageError: there is neither, or the file is no UTF-8 text or its braces do not match.
    """
    if name in prompt_names():
        return files(__name__).joinpath(name + _SUFFIX).read_text(encoding="utf-8")
    if not Path(name).is_file():
        raise UsageError(f"prompt {name!r} is neither a file nor one of {', '.join(prompt_names())}")
    try:
        template = Path(name).read_text(encoding="utf-8")
        list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"prompt file {name} cannot be used: {error}; literal braces are doubled") from None
    return template


def prompt_fields(name: str) -> list[str]:
    """The names of the fields that the template `name` wants, in order of first appearance."""
    parsed = Formatter().parse(load_prompt(name))
    return list(dict.fromkeys(field.partition("[")[0] for _, field, _, _ in parsed if field is not None))


def alpaca_prompt(instruction: str) -> str:
    """The Alpaca template with an instruction, up to where the response begins.

    Taori et al. 2023, "Stanford Alpaca", https://github.com/tatsu-lab/stanford_alpaca.
    """
    before, _, _ = load_prompt(ALPACA).partition("{response}")
    return before.format(instruction=instruction)


def format_prompt(name: str, **fields: object) -> str:
    """The template `name` with its fields filled in; braces in the values stay as they are.

    Args:
        name: the template's name, or a file, as for `load_prompt`.
        fields: exactly the fields of the template; `options` of `mmlu` is a list of the four options' texts.

    Raises:
        UsageError: if there is no such template, or a field is missing or unknown.
    """
    wanted = prompt_fields(name)
    if set(wanted) != set(fields):
        raise UsageError(f"prompt {name!r} takes the fields {sorted(wanted)}, not {sorted(fields)}")
    try:
        return load_prompt(name).format(**fields)
    except IndexError:
        sizes = {field: len(value) for field, value in fields.items() if isinstance(value, list | tuple)}
        raise UsageError(f"prompt {name!r} asks for more items than these fields hold: {sizes}") from None
