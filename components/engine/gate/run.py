"""The stage `deployment_gate`: reads the leaves, decides, promotes, reports."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.decision import Decision, decide
from collabopt.components.engine.gate.policy import parse_policy
from collabopt.components.engine.gate.promotion import check_model_name, promote
from collabopt.components.engine.gate.record import complete_parent
from collabopt.components.engine.records import (
    DECISION_FILE,
    TFLITE_FILE,
    LeafReport,
    read_leaf_report,
    read_stage_record,
)
from collabopt.components.engine.tracking import open_parent, stage_run

STAGE = "deployment_gate"


def run_gate(
    *,
    baseline: str,
    leaves: Mapping[str, str],
    policy_text: str,
    output: str,
    model_name: str,
    parameters: Mapping[str, object],
) -> Decision:
    """Decides which leaf is shipped, registers it as the champion, and completes the pipeline's MLflow run.

    Decides from the artifacts alone, never from MLflow. May be killed at any point: run again, it ends in the same
    state. `decision.json` is written last, so where it is, everything else has been done. No leaf qualifying is an
    outcome, not an error: then nothing is registered.

    Args:
        baseline: Directory of the baseline.
        leaves: Name of a leaf -> its directory.
        policy_text: Policy in YAML; empty for the default one.
        output: Directory for `decision.json`, made if missing.
        model_name: Name under which the winner is registered in MLflow.
        parameters: The pipeline's parameters, to be shown on its MLflow run.

    Returns:
        The decision.

    Raises:
        CollaboptError: Policy, artifacts or model name are not valid, or MLflow cannot be reached.
    """
    policy = parse_policy(policy_text)
    check_model_name(model_name)
    reports = {name: _read_leaf(name, directory) for name, directory in leaves.items()}
    decision = decide(read_stage_record(baseline), reports, policy)

    Path(output).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".unfinished-") as unfinished:
        file = Path(unfinished) / DECISION_FILE
        file.write_text(decision.model_dump_json(indent=2) + "\n", encoding="utf-8")
        with stage_run(STAGE, tags={"winner": decision.winner or "none"}) as run:
            if decision.winner is not None:
                promotion = promote(
                    run, reports[decision.winner], Path(leaves[decision.winner]) / TFLITE_FILE, model_name
                )
                run.set_tags({"registered_model": promotion.model, "registered_version": promotion.version})
            run.log_artifact(file)
            parent = open_parent()
            if parent is not None:
                complete_parent(parent, decision, reports, parameters)
        if parent is not None:
            parent.finish()
        os.replace(file, Path(output) / DECISION_FILE)
    return decision


def _read_leaf(name: str, directory: str) -> LeafReport:
    report = read_leaf_report(directory)
    if report.stage != name:
        raise CollaboptError(
            f"the artifact passed as leaf '{name}' was made by stage '{report.stage}'",
            where=directory,
            todo="pass every leaf under its own name",
        )
    file = Path(directory) / TFLITE_FILE
    if not file.is_file():
        raise CollaboptError(f"leaf '{name}' has no {TFLITE_FILE}", where=directory, todo="run the stage again")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != report.deployed.sha256 or inspect_tflite(content) != report.deployed:
        raise CollaboptError(
            f"{TFLITE_FILE} of leaf '{name}' is not the file that its report describes",
            where=directory,
            todo="run the stage again",
        )
    return report
