"""How long a run will take, learned from the runs so far: seconds are what the 2026 edition's budget counts.

    seconds = startup + tokens · FLOPs per token · (1 + w_half / width) / speed
              + steps · (overhead + layers · layer overhead + parameters · update time)

All six coefficients are positive, so they are fitted as logarithms, with broad normal priors: a GPU to begin with,
and a factor of a thousand or more either way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import least_squares

from cs336_scaling.compute import training_flops_per_token
from cs336_scaling.schemas.edition_2026 import ArchitectureConfig, TrainingConfig
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH

_PRIOR = np.log([20.0, 2.5e-15, 300.0, 2e-3, 2e-4, 1e-11])
_PRIOR_SD = np.array([1.0, 4.0, 0.7, 2.0, 2.0, 3.0])
_NOISE = 0.02


@dataclass(frozen=True)
class Work:
    """What each step of a run asks of a machine; numbers, or arrays of one length."""

    flops: float | np.ndarray
    width: float | np.ndarray
    layers: float | np.ndarray
    parameters: float | np.ndarray

    @classmethod
    def of(cls, shape: ArchitectureConfig, batch: int) -> "Work":
        """A model's, for a batch in sequences."""
        flops = float(batch * SEQUENCE_LENGTH * training_flops_per_token(shape))
        return cls(flops, float(shape.hidden_size), float(shape.num_hidden_layers), float(shape.num_parameters))

    @classmethod
    def stack(cls, works: "Sequence[Work]") -> "Work":
        """Arrays of many."""
        return cls(*(np.array([getattr(work, field.name) for work in works]) for field in fields(cls)))

    def seconds(self, log_coefficients: np.ndarray, steps: float | np.ndarray) -> float | np.ndarray:
        """The time that so many steps take."""
        startup, per_flop, half_width, per_step, per_layer, per_parameter = np.exp(log_coefficients)
        update = per_step + per_layer * self.layers + per_parameter * self.parameters
        return startup + steps * (self.flops * per_flop * (1 + half_width / self.width) + update)


class RuntimeModel:
    """Learns from runs that did all their steps, and of one that was stopped that it takes at least that long."""

    def __init__(self) -> None:
        self._seen: list[tuple[Work, int, float, bool]] = []
        self._log_coefficients = _PRIOR
        self._covariance = np.diag(_PRIOR_SD**2)

    def learn(self, config: TrainingConfig, seconds: float, stopped: bool) -> None:
        """Take a run's time into account.

        Args:
            config: the run.
            seconds: its wall-clock time.
            stopped: whether it was stopped then, at its time limit, instead of doing all its steps.
        """
        self._seen.append(
            (Work.of(config.architecture_config, config.train_batch_size), config.num_steps, seconds, stopped)
        )
        works = Work.stack([work for work, *_ in self._seen])
        steps, times, lower_bounds = (np.array(column) for column in list(zip(*self._seen, strict=True))[1:])

        def residuals(log_coefficients: np.ndarray) -> np.ndarray:
            misfit = np.log(works.seconds(log_coefficients, steps) / times) / _NOISE
            misfit = np.where(lower_bounds, np.minimum(misfit, 0), misfit)
            return np.concatenate([misfit, (log_coefficients - _PRIOR) / _PRIOR_SD])

        fit = least_squares(residuals, self._log_coefficients, method="trf", max_nfev=200)
        self._log_coefficients = fit.x
        self._covariance = np.linalg.inv(fit.jac.T @ fit.jac)

    def seconds(self, work: Work, steps: float | np.ndarray) -> float | np.ndarray:
        """The expected time of a run."""
        return work.seconds(self._log_coefficients, steps)

    def relative_sd(self, work: Work, steps: float | np.ndarray) -> float | np.ndarray:
        """Standard deviation of the log of that time: of what is unknown, not of one run's luck."""
        mode = self._log_coefficients
        gradient = np.stack([
            np.log(work.seconds(mode + shift, steps) / work.seconds(mode - shift, steps)) / 2e-4
            for shift in 1e-4 * np.eye(len(_PRIOR))
        ])  # fmt: skip
        return np.sqrt(np.einsum("i...,ij,j...->...", gradient, self._covariance, gradient))

    def steps_in(self, work: Work, seconds: float | np.ndarray) -> np.ndarray:
        """The whole steps that fit into a time; at least 1. Time is linear in steps."""
        at_zero, at_one = self.seconds(work, 0), self.seconds(work, 1)
        return np.maximum(1, np.floor((seconds - at_zero) / (at_one - at_zero)))
