"""The stages that decide: whether the standard pathway suffices, and which leaf ships."""

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.candidates import read_candidates
from collabopt.components.engine.gate.run import Gate, run_gate
from collabopt.components.engine.gate.sample import samples_of
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.prescreen.records import Prescreen, read_prescreen
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import HTML_FILE, PRESCREEN_FILE, read_leaf_report, read_stage_record
from collabopt.components.engine.search.found import read_found
from collabopt.components.engine.session import stage_session
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.whole_numbers import as_given


def assess_stage(
    *, baseline: str, dataset: str, leaves: Mapping[str, str], policy: str, model_name: str, releases: str
) -> str:
    """Says whether the gate would ship any of these leaves.

    Args:
        baseline: Directory of the baseline.
        dataset: `Dataset` directory.
        leaves: Leaf name -> its directory.
        policy: Policy as YAML.
        model_name: Name of the releases.
        releases: Where releases are kept; empty for nowhere.

    Returns:
        `sufficient` or `insufficient`.
    """
    with stage_session("assess"):
        decision, _ = _gate(baseline, dataset, leaves, policy, model_name, releases).decide()
        emit("assess", "finished", metrics={"leaves": len(leaves)})
        return "insufficient" if decision.winner is None else "sufficient"


def gate_stage(
    *,
    baseline: str,
    dataset: str,
    leaves: Mapping[str, str],
    policy: str,
    output: str,
    report: str,
    model_name: str,
    releases: str,
    parameters: Mapping[str, object],
    predictions: str = "",
    search: str = "",
) -> StageResult:
    """Decides, proves and releases the winner, and completes the pipeline's MLflow run; see `run_gate`.

    Args:
        baseline: Directory of the baseline.
        dataset: `Dataset` directory; the winner is proven on its test split.
        leaves: Leaf name -> its directory.
        policy: Policy as YAML; empty for the default one.
        output: Directory to write.
        report: Where to write the HTML report a second time, as a file of its own.
        model_name: Name of the registered model and of the releases.
        releases: Where releases are kept; empty for the MLflow registry alone.
        parameters: The pipeline's parameters, to be shown on its MLflow run.
        predictions: Directory of the prescreen; "" for none.
        search: Directory of a search that has ended; "" for none. Its leaves are decided on too, by the policy that it
            searched by, and what it has predicted is compared.

    Returns:
        The winner's scalars, none where no leaf qualifies, and its name.

    Raises:
        CollaboptError: See `run_gate`; or no leaf qualifies, and the policy lets the run fail over it.
    """
    with stage_session("gate"):
        predicted = read_prescreen(Path(predictions or search) / PRESCREEN_FILE) if predictions or search else None
        if search:
            found = read_found(Path(search))
            leaves = {**leaves, **found.leaves}
            policy = found.policy
            parameters = {**parameters, **found.parameters}
        gate = _gate(baseline, dataset, leaves, policy, model_name, releases, predicted)
        decision = run_gate(gate, Path(output), {name: as_given(value) for name, value in parameters.items()})
        shutil.copy(Path(output) / HTML_FILE, report)
        if decision.failed:
            raise CollaboptError(
                decision.outcome,
                where="deployment gate",
                todo="see verdicts and report in the pipeline's MLflow run, or relax the policy",
            )
        metrics = read_leaf_report(leaves[decision.winner]).metrics if decision.winner else {}
        emit("gate", "finished", metrics=metrics)
        return StageResult(metrics, {"winner": decision.winner or "", "outcome": decision.outcome})


def _gate(
    baseline: str,
    dataset: str,
    leaves: Mapping[str, str],
    policy: str,
    model_name: str,
    releases: str,
    predicted: Prescreen | None = None,
) -> Gate:
    return Gate(
        read_candidates(read_stage_record(baseline), leaves),
        parse_policy(policy),
        functools.partial(samples_of, dataset),
        model_name,
        releases,
        predicted,
    )
