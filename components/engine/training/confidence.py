"""How far a metric may be off because the test split is only a sample."""

import math
import warnings
from collections.abc import Callable

import numpy as np

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import Interval
from collabopt.components.engine.training.task import Metric

_CONFIDENCE = 0.95
_RESAMPLES = 200
_SEED = 0


def confidence_interval(metric: Metric, outputs: np.ndarray, labels: np.ndarray) -> Interval | None:
    """The 95 % confidence interval of a metric.

    Args:
        metric: The metric; Wilson's interval where it is a `proportion`, else the percentiles of 200 resamples of the
            rows, drawn with a fixed seed.
        outputs: `[n, ...]` float32.
        labels: `[n, ...]`; belong to the outputs by row.

    Returns:
        The interval; None where there is none, as of a metric that is not finite, or not defined on some resample.

    Raises:
        CollaboptError: A metric that is said to be a proportion lies outside of 0 to 1.
    """
    return _wilson(metric, outputs, labels) if metric.proportion else _bootstrap(metric, outputs, labels)


def _wilson(metric: Metric, outputs: np.ndarray, labels: np.ndarray) -> Interval | None:
    from scipy.stats import binomtest

    samples = len(labels)
    value = float(metric.compute(outputs, labels))
    if math.isnan(value):
        return None
    if not 0 <= value <= 1:
        raise CollaboptError(
            f"metric '{metric.name}' is said to be a proportion, but is {value:g}",
            where=f"metric '{metric.name}' of the task",
            todo="give a value between 0 and 1, or leave out `proportion`",
        )
    bounds = binomtest(round(value * samples), samples).proportion_ci(_CONFIDENCE, method="wilson")
    return Interval(
        samples=samples, low=float(bounds.low), high=float(bounds.high), confidence=_CONFIDENCE, method="Wilson"
    )


def _bootstrap(metric: Metric, outputs: np.ndarray, labels: np.ndarray) -> Interval | None:
    from scipy.stats import DegenerateDataWarning, bootstrap

    samples = len(labels)
    if samples < 2 or not math.isfinite(metric.compute(outputs, labels)):
        return None
    with warnings.catch_warnings():
        # What it warns of is answered below.
        warnings.simplefilter("ignore", DegenerateDataWarning)
        resampled = bootstrap(
            (np.arange(samples),),
            _defined_or_nan(metric, outputs, labels),
            vectorized=False,
            n_resamples=_RESAMPLES,
            confidence_level=_CONFIDENCE,
            method="percentile",
            random_state=np.random.default_rng(_SEED),
        )
    low, high = (float(bound) for bound in resampled.confidence_interval)
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return Interval(
        samples=samples,
        low=low,
        high=high,
        confidence=_CONFIDENCE,
        method=f"percentile bootstrap, {_RESAMPLES} resamples",
    )


def _defined_or_nan(metric: Metric, outputs: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], float]:
    """The metric of chosen rows; NaN where it is not defined, as some are where a resample holds a single class."""

    def value(rows: np.ndarray) -> float:
        try:
            return float(metric.compute(outputs[rows], labels[rows]))
        except (ValueError, ZeroDivisionError):
            return math.nan

    return value
