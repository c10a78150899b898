"""What is known of the leaves of trials before anything is trained; see `engine/prescreen`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.prescreen.judgement import missed_goals
from collabopt.components.engine.prescreen.predict import predict
from collabopt.components.engine.prescreen.recipe import Recipe, recipe_with
from collabopt.components.engine.prescreen.records import Prediction
from collabopt.components.engine.records import StageRecord
from collabopt.components.engine.search.sharing import PlannedStage, TrialStages
from collabopt.components.engine.settings import Settings, settings_for


class Foresight:
    """Predictions for leaves, one for all leaves of one structure."""

    def __init__(self, baseline: Path, dataset: Path, record: StageRecord, accelerator: str | None, log: Path) -> None:
        """Predicts nothing yet.

        Args:
            baseline: Directory of the baseline.
            dataset: `Dataset` directory.
            record: The baseline's record.
            accelerator: NPU that footprints are estimated for; None for the one of the leaves' settings.
            log: File for what predictions print.
        """
        self._baseline, self._dataset, self._record, self._log = baseline, dataset, record, log
        self._accelerator = accelerator
        self._known: dict[Recipe, Prediction] = {}

    def predicted(self, trials: Iterable[TrialStages], feasible: TrialStages) -> dict[str, Prediction]:
        """Predicts all leaves of some trials.

        Args:
            trials: Their stages.
            feasible: Stages of a trial whose leaves have been made: were none of all files feasible, `predict` would
                take the model to be at fault.

        Returns:
            Name of a leaf -> its prediction.
        """
        recipes = {
            stage.name: self._recipe(stage, trial) for trial in trials for stage in trial.values() if stage.is_leaf
        }
        unknown = [recipe for recipe in dict.fromkeys(recipes.values()) if recipe not in self._known]
        if unknown:
            sure = self._recipe(next(stage for stage in feasible.values() if stage.is_leaf), feasible)
            asked: dict[Recipe, dict[str, Any]] = {recipe: {} for recipe in dict.fromkeys([sure, *unknown])}
            found = predict(
                {"": asked},
                self._baseline,
                self._dataset,
                allow_lambda=bool(self._record.lineage[0].settings.get("allow_lambda")),
                log=self._log,
            )
            self._known |= dict(zip(asked, found, strict=True))
        return {name: self._known[recipe].model_copy(update={"leaf": name}) for name, recipe in recipes.items()}

    def _recipe(self, leaf: PlannedStage, trial: TrialStages) -> Recipe:
        steps: list[tuple[str, Settings]] = []
        stage: PlannedStage | None = leaf
        while stage is not None:
            place = stage.place
            steps.insert(0, (place.technique, settings_for(place.technique, stage.settings, place.name)))
            stage = trial.get(place.parent)
        return recipe_with(steps, self._accelerator)


def why_left_out(prediction: Prediction, policy: Policy, baseline: Mapping[str, float]) -> str:
    """Why a leaf is not trained; "" where it may meet the policy.

    Args:
        prediction: The leaf's.
        policy: The policy.
        baseline: Figures of the fp32 baseline.
    """
    if prediction.infeasible:
        return f"it cannot be made: {prediction.infeasible}"
    return "; ".join(missed_goals(prediction, policy, baseline))
