"""What a wave passes over: stages that are finished, and what stands below a model that is too bad for any goal."""

import json
from pathlib import Path

import pytest

from collabopt.components.engine.records import MetricOfRecord, StageRecord, Step, read_skipped, write_record
from collabopt.components.engine.search.left_out import write_left_out
from collabopt.components.engine.search.progress import Progress
from collabopt.components.engine.search.sharing import Place, plan_stages
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.pipelines import parameters_of
from collabopt.pipelines.finished_stages import finished_stages
from collabopt.pipelines.search_wave import run_wave, wave_of
from collabopt.pipelines.tree import PRUNING

POLICY = "goals: [{figure: metric, max_drop: 0.02}]"
PARAMETERS = parameters_of("pruning")
PLACES = [Place(stage.name, stage.parent, stage.technique.name) for stage in PRUNING]
(TRIAL,) = plan_stages([{}], PLACES, PARAMETERS, {})


def record(validation: float, *steps: Step) -> StageRecord:
    return StageRecord(
        lineage=[Step(stage="baseline", technique="import_model"), *steps],
        task=DEFAULT_TASK,
        dataset_digest="d",
        metric=MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9),
        metrics={"accuracy": 0.9, "validation_accuracy": validation},
    )


BASELINE = record(0.9)
COLLAPSED = record(0.4, Step(stage="pruned", technique="prune", trial=0))


def leave(root: Path, task: str, made: StageRecord | None, ended: str = "{}") -> None:
    """What kfp.local leaves of a task."""
    directory = root / "search-2026" / task
    artifact = directory / ("dataset" if made is None else "model")
    artifact.mkdir(parents=True)
    if made is not None:
        write_record(made, artifact)
    (directory / "executor_output.json").write_text(ended)


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root"
    leave(path, "load-dataset", None)
    leave(path, "import-model", BASELINE)
    leave(path, "prune", COLLAPSED)
    return path


def test_below_a_collapsed_model_nothing_is_trained_and_every_stage_says_why(root, tmp_path):
    left_out = tmp_path / "left_out.json"
    run_wave(str(root), wave_of({}, list(TRIAL.values()), POLICY, left_out))
    reasons = json.loads(left_out.read_text())
    assert set(reasons) == {stage.name for stage in TRIAL.values()} - {"pruned@0"}
    assert all("'pruned@0' has come to accuracy 0.4000" in reason for reason in reasons.values())
    assert len(list(root.iterdir())) == 1


def test_what_was_left_out_is_recorded_for_the_gate_leaf_by_leaf(root, tmp_path):
    run_wave(str(root), wave_of({}, list(TRIAL.values()), POLICY, tmp_path / "left_out.json"))
    finished = finished_stages(root)
    reasons = json.loads((tmp_path / "left_out.json").read_text())
    written = write_left_out(
        Progress({0: TRIAL}, finished.records, finished.models, reasons), BASELINE, tmp_path / "leaves"
    )
    assert set(written) == {"pruned_ptq@0", "pqat@0", "pruned_clustered_ptq@0", "pcqat@0"}
    skipped = read_skipped(written["pcqat@0"])
    assert [step.name for step in skipped.lineage] == ["baseline", "pruned@0", "pruned_clustered@0", "pcqat@0"]
    assert skipped.reason == reasons["pcqat@0"] and not skipped.lineage[1].skipped


def test_a_task_that_was_killed_while_it_ended_has_not_ended(tmp_path):
    root = tmp_path / "root"
    leave(root, "load-dataset", None)
    leave(root, "import-model", BASELINE)
    leave(root, "prune", COLLAPSED, ended='{"artifacts": {')
    (root / "search-2026/prune-2/model").mkdir(parents=True)
    assert set(finished_stages(root).models) == {"baseline"}
