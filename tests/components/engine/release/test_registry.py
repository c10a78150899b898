"""The registry alone: no store, `store=None`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import read_leaf_report
from collabopt.components.engine.release.promotion import Candidate, promote
from collabopt.components.engine.release.registry import register, version_of
from collabopt.components.engine.tracking import stage_run

MODEL = "keyword spotter"


@pytest.fixture
def promote_leaf():
    """Promotes a leaf directory in a stage run of its own."""

    def promote_it(directory, name=MODEL):
        with stage_run("deployment_gate", tags={}) as run:
            candidate = Candidate(read_leaf_report(directory), Path(directory))
            return promote(candidate, name=name, store=None, seen=0, decision_digest="", run=run)

    return promote_it


def versions(client, name=MODEL):
    return sorted(client.search_model_versions(f"name='{name}'"), key=lambda version: int(version.version))


def aliases(client, name=MODEL):
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def test_the_champion_predicts_like_its_fp32_original_without_tensorflow(
    client, examples, make_leaf, promote_leaf, tmp_path
):
    promote_leaf(make_leaf(examples[0]))
    np.save(tmp_path / "x.npy", examples[0].x)
    program = f"""
import sys
sys.modules["tensorflow"] = sys.modules["collabopt"] = None    # importing them fails
import numpy as np, mlflow.pyfunc
model = mlflow.pyfunc.load_model("models:/{MODEL}@champion")
np.save("y.npy", model.predict(np.load("x.npy")))
assert model.predict(np.load("x.npy")[:0]).shape == (0, 4)
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == np.float32
    assert y.shape == examples[0].y.shape == (7, 4)
    assert np.ptp(examples[0].y, axis=0).max() > 0.1
    np.testing.assert_allclose(y, examples[0].y, atol=0.02)


def test_a_model_that_xnnpack_refuses_is_served_too(client, examples, make_leaf, promote_leaf):
    import mlflow.pyfunc
    from ai_edge_litert.interpreter import Interpreter

    with pytest.raises(RuntimeError):
        Interpreter(model_path=str(examples[2].tflite)).allocate_tensors()
    promote_leaf(make_leaf(examples[2]))
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    np.testing.assert_allclose(model.predict(examples[2].x), examples[2].y, atol=0.02)


def test_samples_of_another_shape_are_refused(client, examples, make_leaf, promote_leaf):
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    promote_leaf(make_leaf(examples[0]))
    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    with pytest.raises(MlflowException, match="shape"):
        model.predict(np.zeros((2, 5, 6, 2), np.float32))


def test_the_version_carries_its_tags_and_needs_no_pickle(client, examples, make_leaf, promote_leaf):
    import mlflow.artifacts

    leaf = make_leaf(examples[0], stage="pqat")
    promotion = promote_leaf(leaf)
    (version,) = versions(client)
    assert version.tags == {
        "sha256": promotion.sha256,
        "stage": "pqat",
        "pathway": "collaborative",
        "techniques": "import_model > prune > sparsity_preserving_qat",
        "validation_status": "approved",
        "model_id": promotion.model_id,
    }
    assert (str(version.version), version.name) == (promotion.version, promotion.model)
    assert (promotion.store, promotion.manifest) == ("", "")
    logged = client.get_logged_model(promotion.model_id)
    assert (str(logged.status), logged.model_type, logged.name) == ("READY", "litert", "pqat")
    files = {file.path for file in client.list_logged_model_artifacts(promotion.model_id)}
    assert "python_model.pkl" not in files and "litert_pyfunc.py" in files
    requirements = mlflow.artifacts.load_text(f"{version.source}/requirements.txt")
    assert "ai-edge-litert==" in requirements and "tensorflow" not in requirements


def test_the_same_file_is_registered_once(client, examples, make_leaf, promote_leaf, monkeypatch):
    leaf = make_leaf(examples[0])
    first = promote_leaf(leaf)
    monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", "another")
    assert promote_leaf(leaf) == first
    assert len(versions(client)) == 1
    assert aliases(client) == {"champion": first.version}


def test_the_former_champion_becomes_previous(client, examples, make_leaf, promote_leaf):
    first = promote_leaf(make_leaf(examples[0]))
    second = promote_leaf(make_leaf(examples[1]))
    assert (first.version, second.version) == ("1", "2")
    assert aliases(client) == {"champion": "2", "previous": "1"}
    promote_leaf(make_leaf(examples[1], 0.8))
    assert aliases(client) == {"champion": "2", "previous": "1"}
    promote_leaf(make_leaf(examples[0], 0.8))
    assert aliases(client) == {"champion": "1", "previous": "2"}
    assert len(versions(client)) == 2


def test_a_rejected_version_is_approved_before_it_is_crowned(client, examples, make_leaf, promote_leaf):
    promote_leaf(make_leaf(examples[0]))
    client.set_model_version_tag(MODEL, "1", "validation_status", "rejected")
    client.delete_registered_model_alias(MODEL, "champion")
    promote_leaf(make_leaf(examples[0], 0.8))
    assert versions(client)[0].tags["validation_status"] == "approved"
    assert aliases(client) == {"champion": "1"}


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "it's", " a", "..", "a@b"])
def test_names_that_cannot_be_addressed_are_refused(client, examples, make_leaf, promote_leaf, name):
    with pytest.raises(CollaboptError, match="not a legal name"):
        promote_leaf(make_leaf(examples[0]), name)


def test_a_file_that_its_report_does_not_describe_is_refused(client, examples, make_leaf, promote_leaf):
    leaf = make_leaf(examples[0])
    Path(leaf, "model.tflite").write_bytes(examples[1].tflite.read_bytes())
    with pytest.raises(CollaboptError, match="not the one that its report describes"):
        promote_leaf(leaf)
    assert client.search_registered_models() == []


def test_a_version_of_another_process_made_meanwhile_is_the_one(client, make_candidate, new_run, monkeypatch):
    """Both have looked, found none and made one: the older one counts, the younger one is deleted."""
    candidate, run = make_candidate(), new_run(client)
    create = type(client).create_model_version

    def create_late(self, name, **arguments):
        create(self, name, **arguments)
        return create(self, name, **arguments)

    monkeypatch.setattr(type(client), "create_model_version", create_late)
    registered = register(run, candidate.report, candidate.tflite, MODEL, {})
    assert str(registered.version) == "1"
    assert [str(version.version) for version in versions(client)] == ["1"]


def test_a_younger_version_with_an_alias_is_left(client, make_candidate, new_run, monkeypatch):
    candidate, run = make_candidate(), new_run(client)
    create = type(client).create_model_version

    def create_late(self, name, **arguments):
        create(self, name, **arguments)
        second = create(self, name, **arguments)
        client.set_registered_model_alias(name, "canary", second.version)
        return second

    monkeypatch.setattr(type(client), "create_model_version", create_late)
    register(run, candidate.report, candidate.tflite, MODEL, {})
    assert [str(version.version) for version in versions(client)] == ["1", "2"]
    assert str(version_of(client, MODEL, candidate.sha256).version) == "1"
