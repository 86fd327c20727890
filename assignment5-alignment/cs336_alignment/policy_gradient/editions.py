"""Functions that two editions of the course give one name and different parameters, told apart by the keywords."""

import inspect
from collections.abc import Callable
from typing import Any

from cs336_basics.command_line import UsageError


def by_edition(editions: dict[str, Callable[..., Any]], **given: Any) -> Any:
    """Call that edition's function whose parameters are given.

    Args:
        editions: the functions by edition. Their keyword-only parameters are no edition's.
        given: keyword arguments, all of one edition.

    Raises:
        UsageError: the keywords mix editions, are no edition's, or leave out what an edition needs.
    """
    parameters = {
        edition: {
            name: parameter
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        }
        for edition, function in editions.items()
    }
    fitting = [
        edition
        for edition, known in parameters.items()
        if given.keys() <= known.keys()
        and given.keys() >= {name for name, parameter in known.items() if parameter.default is parameter.empty}
    ]
    if len(fitting) == 1:
        return editions[fitting[0]](**given)
    allowed = "; or ".join(f"{edition}: {', '.join(known)}" for edition, known in parameters.items())
    raise UsageError(
        f"the keywords {', '.join(given)} are not those of one edition, but a mixture or incomplete; allowed are "
        f"{allowed}"
    )
