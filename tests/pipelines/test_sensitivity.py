"""`collabopt sensitivity` on a small model, and what it refuses."""

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from collabopt.components.engine.layer_plan import read_layer_plan
from collabopt.components.engine.sensitivity.records import LayerSensitivity, Sensitivity
from collabopt.pipelines.sensitivity_tables import print_sensitivity
from tests.components.engine.training import regression_task
from tests.pipelines.refusal import refused

Command = Callable[..., tuple[int, str, str]]

# A process of its own: the command forks, and TensorFlow must not run in a process that forks.
# The class of a sample is its brightest pixel, and the model is always right, but for the test split: half of `first`
# carries the pixels, by its smallest weights that are not zero, and `second` takes no notice of the other half, which
# has the largest.
MAKE_MODEL = """
import numpy as np, tf_keras
from tf_keras import layers
model = tf_keras.Sequential([
    layers.Input((8, 8, 1)),
    layers.Flatten(),
    layers.Dense(128, use_bias=False, name="first"),
    layers.Dense(64, use_bias=False, name="second"),
    layers.Dense(64, use_bias=False, name="third"),
    layers.Softmax(),
])
model.get_layer("first").set_weights([np.hstack([0.1 * np.eye(64), 10 * (1 + np.arange(4096).reshape(64, 64) % 9)])])
model.get_layer("second").set_weights([np.vstack([50 * np.eye(64), np.zeros((64, 64))])])
model.get_layer("third").set_weights([np.eye(64)])
model.save("model.keras")
linear = tf_keras.Sequential([layers.Input((6,)), layers.Dense(1, use_bias=False, name="only")])
linear.set_weights([np.linspace(-1, 1, 6)[:, None]])
linear.save("linear.keras")
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sensitivity")
    subprocess.run([sys.executable, "-c", MAKE_MODEL], cwd=path, check=True, capture_output=True)
    random = np.random.default_rng(0)
    labels = np.arange(640) % 64
    features = random.uniform(0, 0.5, (640, 64)).astype(np.float32)
    features[np.arange(640), labels] = 1
    features = features.reshape(-1, 8, 8, 1)
    test = {"x_test": features[:128], "y_test": (labels[:128] + 1) % 64}
    np.savez(path / "data.npz", x_train=features[128:], y_train=labels[128:], **test)
    np.savez(path / "unlabelled.npz", x_train=features, y_train=labels, x_calibration=features[:64], **test)
    mostly_first = [0] * 9 + [1]
    own = {"x_calibration": features[mostly_first], "y_calibration": labels[mostly_first]}
    np.savez(path / "mostly_first.npz", x_train=features, y_train=labels, **own, **test)
    shutil.copy(regression_task.__file__, path / "distance.py")
    return path


def sensitivity(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).parent / "collabopt", "sensitivity", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def done(directory: Path) -> subprocess.CompletedProcess[str]:
    return sensitivity(directory, "--model", "model.keras", "--data", "data.npz", "--samples", "30", "--json")


@pytest.fixture(scope="module")
def found(done: subprocess.CompletedProcess[str]) -> Sensitivity:
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return Sensitivity.model_validate_json(done.stdout)


def drops(trials: list) -> dict[float, float]:
    return {trial.value: trial.drop for trial in trials}


def test_every_layer_is_tried_at_every_value_on_calibration_samples(found: Sensitivity):
    assert [(each.layer, each.weights, each.share) for each in found.layers] == [
        ("first", 8192, 0.4),
        ("second", 8192, 0.4),
        ("third", 4096, 0.2),
    ]
    assert (found.metric, found.baseline) == ("accuracy", 1.0)
    assert found.samples == 30 < found.calibration_samples < 60
    for each in found.layers:
        assert [trial.value for trial in each.pruned] == [0.3, 0.5, 0.7, 0.8, 0.9]
        assert [trial.value for trial in each.clustered] == [32, 16, 8, 4]


def test_what_changes_nothing_costs_nothing_also_after_what_does(found: Sensitivity):
    first, *others = found.layers
    costs = drops(first.pruned)
    assert costs.pop(0.3) == 0
    assert all(drop > 0.9 for drop in costs.values())
    costs = drops(first.clustered)
    assert costs.pop(32) == costs.pop(16) == 0  # it has eleven values
    assert all(drop > 0.9 for drop in costs.values())
    for other in others:  # with two processes, the last one follows the first in the same
        assert drops(other.pruned) == {0.3: 0, 0.5: 0, 0.7: 0, 0.8: 0, 0.9: 0}  # only zeros are masked
        assert drops(other.clustered) == {32: 0, 16: 0, 8: 0, 4: 0}


def test_of_an_error_more_is_worse(directory: Path):
    given = ["--model", "linear.keras", "--data", "task", "--task", "distance:TASK", "--output", "other.yaml"]
    done = sensitivity(directory, *given, "--json")
    assert done.returncode == 0, done.stderr
    found = Sensitivity.model_validate_json(done.stdout)
    (only,) = found.layers
    gentle, *_, strong = only.pruned
    assert strong.drop > gentle.drop > 0
    assert strong.drop == pytest.approx((strong.metric - found.baseline) / found.baseline)


def test_without_labels_there_is_nothing_to_measure_by(directory: Path):
    done = sensitivity(directory, "--model", "model.keras", "--data", "unlabelled.npz", "--output", "none.yaml")
    assert done.returncode == 1 and "all labels of the calibration split are 0" in done.stderr
    assert "unlabelled.npz" in done.stderr and not (directory / "none.yaml").exists()


def test_a_first_sample_of_class_zero_has_a_label(directory: Path):
    given = ["--model", "model.keras", "--data", "mostly_first.npz", "--samples", "1", "--output", "first.yaml"]
    done = sensitivity(directory, *given, "--json")
    assert done.returncode == 0, done.stderr
    found = Sensitivity.model_validate_json(done.stdout)
    assert (found.samples, found.calibration_samples, found.baseline) == (1, 10, 1.0)


def test_the_plan_is_written_as_a_run_takes_it(found: Sensitivity, directory: Path):
    assert read_layer_plan(directory / "plan.yaml") == found.plan
    most = {"target_sparsity": 0.9}
    assert found.plan.model_dump()["prune"] == {"first": {"target_sparsity": 0.3}, "second": most, "third": most}
    assert found.plan.model_dump()["cluster"]["first"] == {"number_of_clusters": 16}
    text = (directory / "plan.yaml").read_text()
    assert "30 calibration samples" in text
    assert "# second  0.3: 0.0, 0.5: 0.0, 0.7: 0.0, 0.8: 0.0, 0.9: 0.0\n" in text
    assert "# third  32: 0.0, 16: 0.0, 8: 0.0, 4: 0.0\n" in text


def test_the_table_shows_drops_in_per_cent_and_the_plan(found: Sensitivity):
    costly = found.layers[0].pruned[0].model_copy(update={"metric": 0.5, "drop": 0.5})
    small = LayerSensitivity(layer="small", weights=9, share=0.01, pruned=[costly], clustered=[])
    excluded = found.plan.model_copy(update={"prune": {**found.plan.prune, "small": "exclude"}})
    console = Console(record=True, width=120, file=io.StringIO())
    print_sensitivity(console, found.model_copy(update={"layers": [*found.layers, small], "plan": excluded}))
    printed = console.export_text()
    lines = [line.split() for line in printed.splitlines()]
    assert ["second", "8,192", "40.0%", *["0.0"] * 5, "0.9"] in lines
    assert ["second", "8,192", "40.0%", *["0.0"] * 4, "4"] in lines
    assert ["small", "9", "1.0%", "50.0", "-", "-", "-", "-", "exclude"] in lines
    assert f"first 30 of {found.calibration_samples} calibration samples" in printed


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--tolerance", "1"], ["share of the baseline", "--tolerance 1"]),
        (["--tolerance", "nan"], ["share of the baseline"]),
        (["--tolerance", "-0.1"], ["share of the baseline"]),
        (["--task", "no_such_module:TASK"], ["no module 'no_such_module'"]),
        (["--output", "no/such/plan.yaml"], ["no such directory"]),
        (["--set", "datasets.seed=1"], ["unknown stage 'datasets'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_can_be_known_is_said_before_anything_starts(collabopt: Command, options: list[str], expected: list[str]):
    refused(collabopt("sensitivity", "--example", "digits", *options), *expected, left=[])


def test_a_file_that_is_no_plan_is_not_overwritten(collabopt: Command):
    Path("notes.yaml").write_text("hello: world\n")
    result = collabopt("sensitivity", "--example", "digits", "--output", "notes.yaml")
    refused(result, "no earlier plan is in the way", left=["notes.yaml"])
    assert Path("notes.yaml").read_text() == "hello: world\n"
