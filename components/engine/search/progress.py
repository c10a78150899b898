"""How far a search is: every trial with its stages, which of them are trained, and what became of the others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from collabopt.components.engine.records import LeafReport, StageRecord
from collabopt.components.engine.search.sharing import PlannedStage, TrialStages, trainings
from collabopt.components.engine.stage_names import split_name


@dataclass(frozen=True)
class Progress:
    """What trials have come to.

    Attributes:
        trials: Number of every trial -> its stages.
        records: Name of a stage -> its record, of those that are finished, the baseline included.
        models: The same -> directory.
        left_out: Name of a stage -> why it is not trained, or, where an earlier trial has done so, why none would
            train it again.
    """

    trials: Mapping[int, TrialStages]
    records: Mapping[str, StageRecord]
    models: Mapping[str, Path]
    left_out: Mapping[str, str]

    def leaves(self, trial: int) -> dict[str, LeafReport]:
        """The trained leaves of a trial, shared ones included: name -> report."""
        names = [stage.name for stage in self.trials[trial].values()]
        return {name: report for name in names if isinstance(report := self.records.get(name), LeafReport)}

    def all_leaves(self) -> dict[str, LeafReport]:
        """Every trained leaf, each once: name -> report."""
        return {name: report for trial in self.trials for name, report in self.leaves(trial).items()}

    def finished(self, stages: Iterable[PlannedStage]) -> list[PlannedStage]:
        """Those that are finished, each once."""
        return list({stage.name: stage for stage in stages if stage.name in self.records}.values())

    def missing(self, stages: Iterable[PlannedStage]) -> list[PlannedStage]:
        """Those that are not, each once."""
        return list({stage.name: stage for stage in stages if stage.name not in self.records}.values())

    @property
    def epochs(self) -> int:
        """Epochs of training so far."""
        return sum(stage.epochs for stage in self._distinct())

    @property
    def trainings(self) -> int:
        """Stages trained so far."""
        return trainings(self._distinct())

    @property
    def trainings_without_sharing(self) -> int:
        """Stages that would have been trained, had every trial trained its own: no more than its leaves need."""
        return sum(trainings(self._without_sharing(number)) for number in self.trials)

    def _without_sharing(self, trial: int) -> list[PlannedStage]:
        stages = self.trials[trial].values()
        leaves = [leaf for leaf in self.leaves(trial) if leaf not in self.left_out]
        needed = {stage.name for stage in needed_for(leaves, stages)}
        return [stage for stage in self.finished(stages) if stage.name in needed or split_name(stage.name)[1] == trial]

    def _distinct(self) -> list[PlannedStage]:
        return self.finished(stage for trial in self.trials.values() for stage in trial.values())


def needed_for(leaves: Iterable[str], stages: Iterable[PlannedStage]) -> list[PlannedStage]:
    """The stages that lead to these leaves, the leaves included, each once, parents first.

    Args:
        leaves: Names of leaves.
        stages: All stages, parents before children.
    """
    by_name = {stage.name: stage for stage in stages}
    needed: set[str] = set()
    for leaf in leaves:
        name = leaf
        while name in by_name:
            needed.add(name)
            name = by_name[name].parent
    return [stage for name, stage in by_name.items() if name in needed]
