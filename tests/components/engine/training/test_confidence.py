import math

import numpy as np
import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.training.confidence import confidence_interval
from collabopt.components.engine.training.task import Metric


def scores(right, samples):
    """Outputs `[samples, 3]` and labels of which the first `right` agree."""
    labels = np.arange(samples) % 3
    predicted = np.where(np.arange(samples) < right, labels, (labels + 1) % 3)
    return np.eye(3, dtype=np.float32)[predicted], labels


def mean_error(outputs, labels):
    return float(np.mean(np.abs(outputs - labels)))


ERROR = Metric("error", higher_is_better=False, compute=mean_error)


def wilson(right, samples):
    """The formula of E. B. Wilson (1927), without continuity correction."""
    z, share = 1.959963984540054, right / samples
    centre = share + z**2 / (2 * samples)
    half = z * math.sqrt(share * (1 - share) / samples + z**2 / (4 * samples**2))
    return (centre - half) / (1 + z**2 / samples), (centre + half) / (1 + z**2 / samples)


@pytest.mark.parametrize(("right", "samples"), [(8, 10), (95, 100), (10, 10), (0, 10), (1, 3)])
def test_of_an_accuracy_it_is_wilsons(right, samples):
    interval = confidence_interval(TASK.metric, *scores(right, samples))
    assert (interval.samples, interval.confidence, interval.method) == (samples, 0.95, "Wilson")
    assert (interval.low, interval.high) == pytest.approx(wilson(right, samples), abs=1e-9)


def test_of_any_other_metric_it_is_bootstrapped_from_paired_rows():
    """Errors are about 0.1 in pairs, and would be about 2 in mixed ones; the standard error of their mean is 0.0025."""
    random = np.random.default_rng(0)
    labels = random.normal(0, 3, 400)
    outputs = labels + random.choice([-0.15, 0.05], 400)
    interval = confidence_interval(ERROR, outputs, labels)
    assert (interval.samples, interval.confidence) == (400, 0.95)
    assert interval.method == "percentile bootstrap, 200 resamples"
    assert interval.low < mean_error(outputs, labels) < interval.high
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.05 / 20, rel=0.25)


def test_it_is_the_same_every_time_and_narrower_for_more_samples():
    labels = np.random.default_rng(1).normal(size=400)
    whole, again, part = (confidence_interval(ERROR, np.zeros(n), labels[:n]) for n in (400, 400, 40))
    assert whole == again
    assert whole.high - whole.low < (part.high - part.low) / 2


def test_the_metric_is_computed_a_bounded_number_of_times():
    calls = []
    counting = Metric("error", False, lambda outputs, labels: calls.append(1) or mean_error(outputs, labels))
    confidence_interval(counting, np.zeros(50), np.arange(50.0))
    assert len(calls) <= 202


@pytest.mark.parametrize(
    "metric",
    [
        Metric("nan", True, lambda outputs, labels: math.nan),
        Metric("nan", True, lambda outputs, labels: math.nan, proportion=True),
        Metric("infinite", True, lambda outputs, labels: math.inf),
    ],
    ids=["nan", "nan proportion", "infinite"],
)
def test_a_metric_without_a_value_has_no_interval(metric):
    assert confidence_interval(metric, np.ones(10), np.ones(10)) is None


@pytest.mark.parametrize(
    "of_first_class",
    [lambda chosen: math.sqrt(len(chosen) - 1), lambda chosen: 1 / len(chosen), lambda chosen: chosen.mean()],
    ids=["raises ValueError", "divides by zero", "nan"],
)
@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:invalid value")
def test_a_metric_that_some_resamples_leave_undefined_has_no_interval(of_first_class):
    """Of ten samples, a resample leaves a single one of the first class out more often than not."""
    metric = Metric("of one class", True, lambda outputs, labels: float(of_first_class(outputs[labels == 0])))
    assert math.isfinite(metric.compute(np.ones(10), np.arange(10)))
    assert confidence_interval(metric, np.ones(10), np.arange(10)) is None


def test_an_error_of_a_users_metric_is_not_taken_for_a_missing_value():
    broken = Metric("broken", True, lambda outputs, labels: outputs.no_such_method())
    with pytest.raises(AttributeError, match="no_such_method"):
        confidence_interval(broken, np.ones(10), np.ones(10))


def test_one_sample_has_no_bootstrap_but_a_proportion():
    assert confidence_interval(ERROR, np.zeros(1), np.ones(1)) is None
    interval = confidence_interval(TASK.metric, *scores(1, 1))
    assert (interval.low, interval.high) == pytest.approx(wilson(1, 1), abs=1e-9)


def test_a_percentage_that_is_said_to_be_a_proportion_is_refused():
    percent = Metric("percent", True, lambda outputs, labels: 87.5, proportion=True)
    with pytest.raises(CollaboptError, match=r"'percent' is said to be a proportion, but is 87\.5") as refusal:
        confidence_interval(percent, np.ones(8), np.ones(8))
    assert "leave out `proportion`" in refusal.value.todo
