"""How long a run will take, learned from the runs so far: seconds are what the 2026 edition's budget counts.

    seconds = startup + tokens · FLOPs per token · (1 + w_half / width) / speed
              + steps · (overhead + layers · layer overhead + parameters · update time)

All six coefficients are positive, so they are fitted as logarithms, with broad normal priors: a GPU to begin with,
and a factor of a thousand or more either way.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from cs336_scaling.compute import training_flops_per_token
from cs336_scaling.schemas.edition_2026 import ArchitectureConfig, TrainingConfig
from cs336_scaling.schemas.limits import SEQUENCE_LENGTH

_PRIOR = np.log([20.0, 2.5e-15, 300.0, 2e-3, 2e-4, 1e-11])
_PRIOR_SD = np.array([1.0, 4.0, 0.7, 2.0, 2.0, 3.0])
_NOISE = 0.02


@dataclass(frozen=True)
class _Work:
    """What a run asks of a machine."""

    flops: float
    width: float
    steps: float
    layers: float
    parameters: float

    def seconds(self, log_coefficients: np.ndarray) -> float:
        """The time it takes."""
        startup, per_flop, half_width, per_step, per_layer, per_parameter = np.exp(log_coefficients)
        per_update = per_step + per_layer * self.layers + per_parameter * self.parameters
        return startup + self.flops * per_flop * (1 + half_width / self.width) + self.steps * per_update


def _work(shape: ArchitectureConfig, batch: int, steps: float) -> _Work:
    tokens = steps * batch * SEQUENCE_LENGTH
    return _Work(
        tokens * training_flops_per_token(shape),
        shape.hidden_size,
        steps,
        shape.num_hidden_layers,
        shape.num_parameters,
    )


class RuntimeModel:
    """Learns from runs that did all their steps, and of one that was stopped that it takes at least that long."""

    def __init__(self) -> None:
        self._seen: list[tuple[_Work, float, bool]] = []
        self._log_coefficients = _PRIOR
        self._covariance = np.diag(_PRIOR_SD**2)

    def learn(self, config: TrainingConfig, seconds: float, stopped: bool) -> None:
        """Take a run's time into account.

        Args:
            config: the run.
            seconds: its wall-clock time.
            stopped: whether it was stopped then, at its time limit, instead of doing all its steps.
        """
        work = _work(config.architecture_config, config.train_batch_size, config.num_steps)
        self._seen.append((work, seconds, stopped))

        def residuals(log_coefficients: np.ndarray) -> np.ndarray:
            misfit = np.array([
                np.log(work.seconds(log_coefficients) / seen) / _NOISE for work, seen, _ in self._seen
            ])  # fmt: skip
            lower_bounds = np.array([stopped for _, _, stopped in self._seen])
            misfit = np.where(lower_bounds, np.minimum(misfit, 0), misfit)
            return np.concatenate([misfit, (log_coefficients - _PRIOR) / _PRIOR_SD])

        fit = least_squares(residuals, self._log_coefficients, method="trf", max_nfev=200)
        self._log_coefficients = fit.x
        self._covariance = np.linalg.inv(fit.jac.T @ fit.jac)

    def seconds(self, shape: ArchitectureConfig, batch: int, steps: float) -> float:
        """The expected time of a run."""
        return _work(shape, batch, steps).seconds(self._log_coefficients)

    def relative_sd(self, shape: ArchitectureConfig, batch: int, steps: float) -> float:
        """Standard deviation of the log of that time: of what is unknown, not of one run's luck."""
        work = _work(shape, batch, steps)
        shifts = 1e-4 * np.eye(len(_PRIOR))
        gradient = np.array([
            (np.log(work.seconds(self._log_coefficients + h)) - np.log(work.seconds(self._log_coefficients - h))) / 2e-4
            for h in shifts
        ])  # fmt: skip
        return float(np.sqrt(gradient @ self._covariance @ gradient))

    def steps_in(self, shape: ArchitectureConfig, batch: int, seconds: float) -> int:
        """The steps that fit into a time; at least 1. Time is linear in steps."""
        at_zero, at_one = self.seconds(shape, batch, 0), self.seconds(shape, batch, 1)
        return max(1, int((seconds - at_zero) / (at_one - at_zero)))
