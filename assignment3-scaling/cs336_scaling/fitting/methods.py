"""The four ways to fit scaling laws, under one interface, so that they can stand side by side."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from cs336_scaling.fitting.chinchilla import ChinchillaLaw, fit_chinchilla
from cs336_scaling.fitting.iso_flops import METHOD_NAMES, fit_isoflops
from cs336_scaling.fitting.kaplan import KaplanLaw, fit_kaplan


class ScalingLaw(Protocol):
    """A fit that says which model is best for a compute budget."""

    @property
    def method_name(self) -> str:
        """The method in words."""
        ...

    @property
    def exponents(self) -> tuple[float, float]:
        """The exponents of C in N_opt and D_opt."""
        ...

    def optimal(self, flops: float) -> tuple[float, float]:
        """(N_opt, D_opt) for a compute budget."""
        ...

    def optimal_loss(self, flops: float) -> float:
        """The predicted loss of that model."""
        ...

    def coefficients(self) -> dict[str, float]:
        """What was fitted, by name."""
        ...


METHODS: dict[str, Callable[..., Any]] = {
    "lowest": partial(fit_isoflops, method="lowest"),
    "quadratic": partial(fit_isoflops, method="quadratic"),
    "chinchilla": fit_chinchilla,
    "kaplan": fit_kaplan,
}
"""Fits by short name; each takes `Runs` and returns a `ScalingLaw`, or raises `UsageError` if the runs do not do."""

DESCRIPTIONS = METHOD_NAMES | {"chinchilla": ChinchillaLaw.method_name, "kaplan": KaplanLaw.method_name}
"""The methods in words, by short name."""
