"""Which filters run with which options: from a YAML file, names on the command line, and single options on it.

filters:                 # in this order; a name alone takes the filter's defaults
  - language: {languages: [en], min_score: 0.65}
  - gopher
  - pii
dedup: {method: minhash, jaccard_threshold: 0.7}
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cs336_basics.command_line import UsageError
from cs336_data.filters import DEFAULT_CHAIN
from cs336_data.pipeline.chain import FilterSpec
from cs336_data.pipeline.dedup_settings import DedupSettings

_SECTIONS = {"filters": list, "dedup": dict}


def read_config(path: Path | None) -> dict[str, Any]:
    """The content of a YAML configuration; empty without one.

    Raises:
        UsageError: it is no YAML, or has sections that are unknown or no list of filters and no mapping of settings.
    """
    if path is None:
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UsageError(f"{path} must hold a mapping with {' and '.join(_SECTIONS)}, not {type(config).__name__}")
    for section, content in config.items():
        if section not in _SECTIONS:
            raise UsageError(f"{path}: section {section!r} is unknown; allowed are {' and '.join(_SECTIONS)}")
        if not isinstance(content, _SECTIONS[section] | None):
            kind = {list: "list", dict: "mapping"}[_SECTIONS[section]]
            raise UsageError(f"{path}: section {section!r} must be a {kind}, not {content!r}")
    return config


def filter_specs(
    config: Mapping[str, Any], names: Sequence[str] | None, options: Sequence[str]
) -> tuple[FilterSpec, ...]:
    """The filters of a run.

    Args:
        config: what `read_config` gave.
        names: the filters to run, in order; None takes the configuration's, else the default chain. Options that the
            configuration gives them hold.
        options: single options, "gopher.min_words=20"; the value is read as YAML, as in the configuration.

    Raises:
        UsageError: an entry or option that cannot be understood, or an option of a filter that does not run.
    """
    configured = dict(map(_entry, config.get("filters") or DEFAULT_CHAIN))
    chosen = {name: dict(configured.get(name, {})) for name in (configured if names is None else names)}
    for target, value in key_values(options).items():
        name, _, key = target.partition(".")
        if not key:
            raise UsageError(f"option {target!r} must have the form FILTER.OPTION")
        if name not in chosen:
            raise UsageError(f"option {target!r} is for a filter that does not run; these do: {', '.join(chosen)}")
        chosen[name][key] = value
    return tuple(
        FilterSpec(name, tuple((key, _frozen(value)) for key, value in o.items())) for name, o in chosen.items()
    )


def dedup_settings(config: Mapping[str, Any], **flags: Any) -> DedupSettings:
    """The settings of deduplication: the configuration's, overruled by flags that are not None.

    Raises:
        UsageError: a setting is unknown or out of range.
    """
    values = dict(config.get("dedup") or {}) | {name: value for name, value in flags.items() if value is not None}
    known = [field.name for field in dataclasses.fields(DedupSettings)]
    for name in values:
        if name not in known:
            raise UsageError(f"dedup setting {name!r} is unknown; allowed are {', '.join(known)}")
    return DedupSettings(**values)


def _entry(entry: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, dict) and len(entry) == 1:
        ((name, options),) = entry.items()
        if isinstance(options, dict) or options is None:
            return name, options or {}
    raise UsageError(f"filter {entry!r} must be a name, or a name with a mapping of its options")


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that settings are hashable."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def key_values(options: Sequence[str]) -> dict[str, Any]:
    """Options of the form NAME=VALUE as a mapping; values are read as YAML.

    Raises:
        UsageError: an option has another form.
    """
    values = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not (name and equals):
            raise UsageError(f"option {option!r} must have the form NAME=VALUE")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"option {option!r}: {value!r} is not a YAML value") from None
    return values
