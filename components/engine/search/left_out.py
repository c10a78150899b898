"""The records of leaves that a search does not train, for the gate, which names every leaf and its reason."""

from pathlib import Path

from collabopt.components.engine.records import SkippedRecord, StageRecord, Step, write_record
from collabopt.components.engine.search.progress import Progress
from collabopt.components.engine.search.sharing import PlannedStage, TrialStages
from collabopt.components.engine.stage_names import split_name


def write_left_out(progress: Progress, baseline: StageRecord, directory: Path) -> dict[str, Path]:
    """Writes `skipped.json` for every leaf that is not trained, each once.

    Args:
        progress: All trials.
        baseline: Record of the baseline.
        directory: Where to; every leaf gets a directory of its own.

    Returns:
        Name of a leaf -> its directory.
    """
    written = {}
    for trial in progress.trials.values():
        for leaf in progress.missing(stage for stage in trial.values() if stage.is_leaf):
            if leaf.name not in progress.left_out or leaf.name in written:
                continue
            written[leaf.name] = directory / leaf.name
            written[leaf.name].mkdir(parents=True)
            write_record(_record(leaf, trial, progress, baseline), written[leaf.name])
    return written


def _record(leaf: PlannedStage, trial: TrialStages, progress: Progress, baseline: StageRecord) -> SkippedRecord:
    way = [leaf]
    while way[0].place.parent in trial:
        way.insert(0, trial[way[0].place.parent])
    trained = [stage for stage in way if stage.name in progress.records]
    before = progress.records[trained[-1].name] if trained else baseline
    planned = [
        Step(
            stage=stage.place.name,
            technique=stage.place.technique,
            settings=dict(stage.settings),
            trial=split_name(stage.name)[1],
            skipped=progress.left_out.get(stage.name, progress.left_out[leaf.name]),
        )
        for stage in way[len(trained) :]
    ]
    return SkippedRecord(
        lineage=[*before.lineage, *planned],
        task=baseline.task,
        dataset_digest=baseline.dataset_digest,
        metric=baseline.metric,
        versions=baseline.versions,
    )
