"""What a search has saved by sharing stages between trials."""

from collabopt.components.engine.records import LeafReport, StageRecord
from collabopt.components.engine.search.progress import Progress
from collabopt.components.engine.search.sharing import Place, PlannedStage, plan_stages
from collabopt.pipelines import parameters_of
from collabopt.pipelines.tree import PRUNING

PLACES = [Place(stage.name, stage.parent, stage.technique.name) for stage in PRUNING]
# They share `pruned`, `pruned_ptq` and `pqat`; of the second trial, `pcqat` is not trained.
FIRST, SECOND = plan_stages([{}, {"clusters": 8}], PLACES, parameters_of("pruning"), {})


def record(stage: PlannedStage) -> StageRecord:
    return (LeafReport if stage.is_leaf else StageRecord).model_construct()


def progress(*left_out: str) -> Progress:
    records = {stage.name: record(stage) for stage in (*FIRST.values(), *SECOND.values())}
    del records["pcqat@1"]
    return Progress({0: FIRST, 1: SECOND}, records, {}, dict.fromkeys(("pcqat@1", *left_out), "too large"))


def test_without_sharing_every_trial_trains_what_its_leaves_need():
    assert progress().trainings == 5
    assert progress().trainings_without_sharing == 4 + 3


def test_a_leaf_that_would_not_be_trained_again_is_not_counted_again():
    assert progress("pqat@0").trainings_without_sharing == 4 + 2
    # `pruned` is what `pruned_clustered_ptq@1` stands on, too.
    assert progress("pqat@0", "pruned_ptq@0").trainings_without_sharing == 4 + 2


def test_what_only_leaves_left_out_stand_on_is_not_counted_again():
    second = {name: stage for name, stage in SECOND.items() if "clustered" not in name and name != "pcqat"}
    records = {stage.name: record(stage) for stage in FIRST.values()}
    counted = Progress({0: FIRST, 1: second}, records, {}, {"pqat@0": "too large", "pruned_ptq@0": "too large"})
    assert counted.trainings_without_sharing == 4


def test_a_trial_is_counted_by_its_number_also_where_one_before_it_has_not_been_answered():
    whole = progress()
    assert Progress({1: SECOND}, whole.records, {}, whole.left_out).trainings_without_sharing == 3
    assert set(Progress({1: SECOND}, whole.records, {}, {}).all_leaves()) == {
        "pruned_ptq@0",
        "pqat@0",
        "pruned_clustered_ptq@1",
    }
