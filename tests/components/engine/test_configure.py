import pytest

from collabopt.components.engine.configure import configure_run
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.pipelines import parameters_of, stages_of

EXAMPLE = "example://digits"
NOT_SETTINGS = ("model", "data", "task", "policy", "model_name", "releases", "settings")
PARAMETERS = {name: value for name, value in parameters_of("exhaustive").items() if name not in NOT_SETTINGS}


def configure(settings=None, policy="", task=DEFAULT_TASK, stages=None, model_name="kws", releases="", **parameters):
    return configure_run(
        stages=stages or stages_of("exhaustive"),
        settings=settings or {},
        policy=policy,
        task=task,
        model=EXAMPLE,
        data=EXAMPLE,
        model_name=model_name,
        releases=releases,
        parameters={**PARAMETERS, **parameters},
    )


def test_every_stage_gets_its_own_overrides_and_no_others():
    outputs = configure({"pqat": {"epochs": 7}})
    assert outputs.pop("pqat") == {"epochs": 7}
    parameters = outputs.pop("parameters")
    assert parameters == {
        "model": EXAMPLE,
        "data": EXAMPLE,
        "model_digest": outputs.pop("model_digest"),
        "data_digest": outputs.pop("data_digest"),
        "task": DEFAULT_TASK,
        "policy": "",
        "pqat.epochs": 7,
        **PARAMETERS,
    }
    assert all(values == {} for values in outputs.values())


def test_settings_are_checked_together_with_the_parameters_of_the_run():
    configure({"pruned": {"initial_sparsity": 0.6}}, sparsity=0.8)
    with pytest.raises(CollaboptError, match="initial_sparsity must be below target_sparsity"):
        configure({"pruned": {"initial_sparsity": 0.6}}, sparsity=0.5)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"settings": {"prunned": {"epochs": 1}}}, ["unknown stage 'prunned'", "pruned_ptq"]),
        ({"settings": {"pruned": {"epoch": 1}}}, ["unknown parameter 'epoch'", "target_sparsity"]),
        ({"settings": {"pruned": {"epochs": 0}}}, ["epochs=0", "greater than or equal to 1"]),
        ({"settings": {"pruned": 3}}, ["must map parameter names to values, not int"]),
        ({"settings": {"ptq": {"representative_samples": 0}}}, ["stage 'ptq'", "representative_samples=0"]),
        ({"sparsity": 0.0}, ["target_sparsity=0.0"]),
        ({"sparsity": 1.0}, ["target_sparsity=1.0"]),
        ({"clusters": 1}, ["number_of_clusters=1"]),
        ({"clusters": 2}, ["stage 'pruned_clustered'", "number_of_clusters=2", "greater than or equal to 3"]),
        ({"policy": "max_dropp: 1"}, ["max_dropp"]),
        (
            {"policy": "priority: [{figure: loss, higher_is_better: false}]"},
            ["'loss'", "metrics of the task: accuracy"],
        ),
        ({"task": "nowhere:TASK"}, ["nowhere"]),
        ({"model_name": "a/b"}, ["a/b"]),
        ({"learning_rate": float("inf")}, ["learning_rate=inf", "finite"]),
        ({"settings": {"dataset": {"scale": float("nan")}}}, ["scale=nan", "finite"]),
        ({"settings": {"qat": {"epochs": True}}}, ["epochs=True", "number"]),
        ({"seed": 2**32}, ["seed=4294967296"]),
    ],
)
def test_what_is_illegal_is_refused_before_anything_runs(arguments, parts):
    with pytest.raises(CollaboptError) as refusal:
        configure(**arguments)
    for part in parts:
        assert part in str(refusal.value)


def test_a_stage_that_the_pipeline_leaves_out_cannot_be_set():
    stages = {**stages_of("exhaustive"), "pcqat": ""}
    assert configure(stages=stages)["pcqat"] == {}
    with pytest.raises(CollaboptError, match="unknown stage 'pcqat'"):
        configure({"pcqat": {"epochs": 2}}, stages=stages)
