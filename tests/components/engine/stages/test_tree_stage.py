"""What a stage refuses, however it is called: components may stand in pipelines that no tree has checked."""

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import MetricOfRecord, StageRecord, Step, write_record
from collabopt.components.engine.stages import run_stage
from collabopt.components.engine.training.task import DEFAULT_TASK

PRUNED = [Step(stage="baseline", technique="import_model"), Step(stage="pruned", technique="prune")]


@pytest.fixture
def run(data, tmp_path, monkeypatch):
    """Runs a technique below a parent of the given lineage, made with the given data."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")

    def call(technique, lineage, digest=None):
        record = StageRecord(
            lineage=lineage,
            task=DEFAULT_TASK,
            dataset_digest=digest or data.spec.digest,
            metric=MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9),
        )
        write_record(record, tmp_path)
        return run_stage(
            technique,
            stage="leaf",
            parent=str(tmp_path),
            dataset=str(data.directory),
            output=str(tmp_path / "output"),
            task=DEFAULT_TASK,
            settings={},
            overrides={},
        )

    return call


@pytest.mark.parametrize(
    ("technique", "lineage", "missing"),
    [
        ("sparsity_preserving_qat", PRUNED[:1], "sparse"),
        ("cluster_preserving_qat", PRUNED, "clustered"),
        ("sparsity_cluster_preserving_qat", PRUNED, "clustered"),
        ("sparsity_preserving_cluster", [*PRUNED, Step(stage="c", technique="cluster")], "sparse"),
    ],
)
def test_a_parent_without_what_is_to_be_preserved_is_refused(run, technique, lineage, missing):
    with pytest.raises(CollaboptError, match=f"{technique} needs a parent that is {missing}"):
        run(technique, lineage)


def test_a_parent_made_with_other_data_is_refused(run):
    with pytest.raises(CollaboptError, match="'pruned' was made with another data set"):
        run("post_training_quantize", PRUNED, digest="0" * 64)
