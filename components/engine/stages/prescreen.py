"""The stage that predicts what every leaf will weigh and cost, and says which stages need not be trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.policy.figures import baseline_figures
from collabopt.components.engine.policy.policy import Policy, parse_policy
from collabopt.components.engine.prescreen.branches import Branch, reasons_not_to_train, ways_to_leaves
from collabopt.components.engine.prescreen.judgement import check_feasible, missed_goals
from collabopt.components.engine.prescreen.mode import OFF, SKIP, check_mode
from collabopt.components.engine.prescreen.predict import predict
from collabopt.components.engine.prescreen.recipe import AXES, Recipe, recipes_over
from collabopt.components.engine.prescreen.records import Prediction, Prescreen, write_prescreen
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import PRESCREEN_FILE, StageRecord, read_stage_record
from collabopt.components.engine.session import stage_session
from collabopt.components.engine.stage_host import hosted
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.versions import versions

STAGE = "prescreen"


@hosted
def prescreen_stage(
    *,
    mode: str,
    baseline: str,
    dataset: str,
    output: str,
    stages: Mapping[str, Mapping[str, str]],
    parameters: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, object]],
    policy: str,
) -> StageResult:
    """Makes every leaf's file without training, and judges it by the policy.

    Args:
        mode: One of `MODES`.
        baseline: Directory of the baseline.
        dataset: `Dataset` directory.
        output: Directory to write: `prescreen.json`.
        stages: Every stage of the tree -> its `parent` and its `technique`, nothing where the pipeline leaves it out.
        parameters: Pipeline parameters that change what is predicted: the axes, and the accelerator.
        settings: Stage -> hyperparameter -> value, over these.
        policy: Policy of the gate, as YAML.

    Returns:
        Scalars, and as values why each stage is not trained, "" where it is.

    Raises:
        CollaboptError: A mode, setting or policy that is not legal; or a leaf that could not be made after training
            either, where predictions decide over what is trained.
    """
    with stage_session(STAGE):
        check_mode(mode)
        branches = {name: Branch(**stage) for name, stage in stages.items() if stage}
        record, rules = read_stage_record(baseline), parse_policy(policy)
        recipes = (
            {} if mode == OFF else recipes_over(ways_to_leaves(branches), {}, parameters, settings, rules.accelerator)
        )
        predictions = _judged(recipes, rules, record, Path(baseline), Path(dataset))
        if mode == SKIP:
            check_feasible(predictions, branches)
        missed = {each.leaf: each.missed for each in predictions if mode == SKIP}
        reasons = reasons_not_to_train(branches, missed)
        found = Prescreen(
            model=str(record.lineage[0].settings.get("source", "")),
            data=StoredDataset(dataset).spec.source,
            dataset_digest=record.dataset_digest,
            grid={axis: [parameters[axis]] for axis in AXES},
            baseline=baseline_figures(record),
            policy=rules,
            predictions=predictions,
            files=len({recipe for of_leaf in recipes.values() for recipe in of_leaf}),
            not_trained={name: reason for name, reason in reasons.items() if reason},
            versions=versions(),
        )
        Path(output).mkdir(parents=True, exist_ok=True)
        write_prescreen(found, Path(output) / PRESCREEN_FILE)
        emit(STAGE, "finished", metrics={}, message=_in_words(mode, found, branches))
        return StageResult(_scalars(found), {"stage": STAGE, "mode": mode}, {**dict.fromkeys(stages, ""), **reasons})


def _judged(
    recipes: Mapping[str, Mapping[Recipe, Any]], policy: Policy, record: StageRecord, baseline: Path, dataset: Path
) -> list[Prediction]:
    if not recipes:
        return []
    figures = baseline_figures(record)
    accepted_with = record.lineage[0].settings
    predictions = predict(recipes, baseline, dataset, allow_lambda=bool(accepted_with.get("allow_lambda")))
    return [each.model_copy(update={"missed": missed_goals(each, policy, figures)}) for each in predictions]


def _scalars(found: Prescreen) -> dict[str, float]:
    packed = {
        f"{each.leaf}_packed_bytes": each.figures["packed_bytes"]
        for each in found.predictions
        if "packed_bytes" in each.figures
    }
    return {"stages_not_trained": float(len(found.not_trained)), **packed}


def _in_words(mode: str, found: Prescreen, branches: Mapping[str, Branch]) -> str:
    if mode == OFF:
        return "off"
    short = sum(bool(each.missed) for each in found.predictions)
    said = (
        f"{short} of {len(found.predictions)} leaves cannot meet the policy"
        if short
        else "every leaf may meet the policy"
    )
    skipped = f"; {len(found.not_trained)} of {len(branches)} stages are not trained" if found.not_trained else ""
    return said + skipped
