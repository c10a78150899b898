"""What Kubeflow's cache looks tasks up by, computed from the compiled pipelines.

The key of a task is its image, its command and the values of its parameters, and of every input artifact the execution
that made it (kubeflow/pipelines backend/src/v2/cacheutils/cache.go; an artifact's name there is the id of its record).
So a task is a hit where its own values are the same and all that it stands on are hits.
"""

import hashlib
import json
import re
import typing
import uuid

import pytest
import yaml
from kfp import compiler

from collabopt import components
from collabopt.components.engine.bindings import BINDINGS
from collabopt.components.engine.settings import SETTINGS
from collabopt.pipelines import PIPELINES, SEARCH, load_pipeline, parameters_of, stages_of
from collabopt.pipelines.tree import ROOT, TREE

NEVER_CACHED = {"configure", "assess", "gate"}
SHARED = sorted({parameter for binding in BINDINGS.values() for parameter in binding.values()})
# Where half of the default, or one more, is not legal.
OTHER_VALUES = {
    "train_share": 0.5,
    "initial_sparsity": 0.1,
    "accelerator": "ethos-u65-256",
    "sparsity": 0.25,
    "distillation_temperature": 2.0,
    "layers": {"conv": "exclude"},
}


# What a search runs is known only when it runs; `test_search_pipeline` looks at its keys.
@pytest.fixture(scope="module", params=sorted(PIPELINES.keys() - {SEARCH}))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def spec(name, tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    compiler.Compiler().compile(load_pipeline(name), str(path))
    return next(yaml.safe_load_all(path.read_text()))


@pytest.fixture(scope="module")
def keys(spec, name):
    """Computes the key of every task, by its name in the tree, for some arguments of the pipeline.

    `reasons` says why stages are not trained: stage -> what the prescreen has found.
    """

    def compute(reasons=None, **arguments):
        found = {}
        _walk(spec, spec["root"], {**parameters_of(name), **arguments}, {}, found, reasons or {})
        return found

    return compute


@pytest.fixture(scope="module")
def unchanged(keys):
    return keys()


def _walk(spec, dag, parameters, artifacts, found, reasons):
    tasks = dag["dag"]["tasks"]
    outputs, made = {}, {}
    while waiting := [task for task in tasks if task not in made]:
        for task in waiting:
            given = tasks[task].get("inputs", {})
            needed = [
                source["taskOutputArtifact"]
                for source in given.get("artifacts", {}).values()
                if "taskOutputArtifact" in source
            ]
            needed += [
                source["taskOutputParameter"]
                for source in given.get("parameters", {}).values()
                if "taskOutputParameter" in source
            ]
            if not {each["producerTask"] for each in needed} <= set(made):
                continue
            values = {key: _value(source, parameters, outputs) for key, source in given.get("parameters", {}).items()}
            inputs = {key: _artifact(source, artifacts, made) for key, source in given.get("artifacts", {}).items()}
            component = spec["components"][tasks[task]["componentRef"]["name"]]
            if "dag" in component:
                _walk(spec, component, values, inputs, found, reasons)
                made[task] = None
                continue
            container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
            key = json.dumps([container, values, inputs], sort_keys=True, default=str)
            if not tasks[task].get("cachingOptions", {}).get("enableCache"):
                key += uuid.uuid4().hex
            made[task] = hashlib.sha256(key.encode()).hexdigest()
            found[tasks[task]["taskInfo"]["name"]] = made[task]
            if tasks[task]["taskInfo"]["name"] == "configure":
                outputs[task] = components.configure.python_func(**values)._asdict()
            if tasks[task]["taskInfo"]["name"] == "prescreen":
                outputs[task] = {stage.name: reasons.get(stage.name, "") for stage in TREE}


def _value(source, parameters, outputs):
    if "componentInputParameter" in source:
        return parameters[source["componentInputParameter"]]
    if "taskOutputParameter" in source:
        producer = source["taskOutputParameter"]
        return outputs.get(producer["producerTask"], {}).get(producer["outputParameterKey"])
    return source["runtimeValue"]["constant"]


def _artifact(source, artifacts, made):
    if "componentInputArtifact" in source:
        return artifacts[source["componentInputArtifact"]]
    return made[source["taskOutputArtifact"]["producerTask"]]


def subtree(name, stage):
    """A stage of a pipeline with all that is computed from it."""
    everything = set(stages_of(name))
    if stage == "dataset":
        return everything
    if stage == ROOT:
        return everything - {"dataset"}
    return {each for each in everything - {"dataset", ROOT} if stage in {step.name for step in TREE.path(each)}}


def changed(before, after):
    """Tasks that miss the cache; the prescreen is looked at by itself."""
    assert set(before) == set(after)
    return {task for task in before if before[task] != after[task]} - NEVER_CACHED - {"prescreen"}


def other(field, default, annotation):
    """A legal value that is not the default."""
    if field in OTHER_VALUES:
        return OTHER_VALUES[field]
    choices = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return next(choice for choice in choices if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    return {"label": {"key": "y"}} if isinstance(default, dict) else default / 2 or 0.5


def test_configure_assess_and_gate_are_never_cached_and_all_stages_are(spec):
    dags = [spec["root"], *(each for each in spec["components"].values() if "dag" in each)]
    tasks = [task for dag in dags for task in dag["dag"]["tasks"].values()]
    stages = [task for task in tasks if "dag" not in spec["components"][task["componentRef"]["name"]]]
    cached = {task["taskInfo"]["name"]: task["cachingOptions"].get("enableCache", False) for task in stages}
    assert {task for task, is_cached in cached.items() if not is_cached} == NEVER_CACHED & set(cached)
    assert "gate" in cached and "configure" in cached


def test_no_run_id_and_no_credential_is_an_argument(spec):
    """Nor in the constant environment of a container, which newer caches look at too."""
    names = [
        key for each in spec["components"].values() for key in each.get("inputDefinitions", {}).get("parameters", {})
    ]
    names += spec["root"]["inputDefinitions"]["parameters"]
    assert not [key for key in names if re.search("run_?id|token|password|secret|credential|user|tracking", key)]
    assert "{{$.pipeline" not in json.dumps(spec)
    assert not [each for each in spec["deploymentSpec"]["executors"].values() if each["container"].get("env")]


def test_the_same_again_is_all_hits(keys, unchanged):
    assert changed(unchanged, keys()) == set()


def test_a_setting_of_a_stage_invalidates_exactly_its_subtree(name, keys, unchanged):
    """Every setting of every stage."""
    wrong = {}
    for stage, technique in stages_of(name).items():
        for field, info in SETTINGS[technique].model_fields.items():
            value = other(field, info.default, info.annotation)
            found = changed(unchanged, keys(settings={stage: {field: value}}))
            if found != subtree(name, stage):
                wrong[f"{stage}.{field}"] = found
    assert wrong == {}


@pytest.mark.parametrize("parameter", SHARED)
def test_a_pipeline_parameter_invalidates_the_subtrees_of_the_stages_that_take_it(name, keys, unchanged, parameter):
    default = parameters_of(name)[parameter]
    takers = [stage for stage, technique in stages_of(name).items() if parameter in BINDINGS[technique].values()]
    found = changed(unchanged, keys(**{parameter: other(parameter, default, type(default))}))
    assert found == set().union(*(subtree(name, stage) for stage in takers))


@pytest.mark.parametrize(
    "argument",
    [
        {"policy": "goals: []"},
        {"prescreen": "report"},
        {"model_name": "other"},
        {"releases": "gs://bucket/x"},
    ],
)
def test_what_only_prescreen_and_gate_take_invalidates_nothing_else(keys, unchanged, argument):
    assert changed(unchanged, keys(**argument)) == set()


def test_other_content_under_the_same_name_invalidates_what_reads_it(name, keys, tmp_path):
    model, data = tmp_path / "model.keras", tmp_path / "data.npz"
    model.write_bytes(b"model")
    data.write_bytes(b"data")
    before = keys(model=str(model), data=str(data))
    assert changed(before, keys(model=str(model), data=str(data))) == set()
    model.write_bytes(b"model 2")
    assert changed(before, keys(model=str(model), data=str(data))) == subtree(name, ROOT)
    model.write_bytes(b"model")
    data.write_bytes(b"data 2")
    assert changed(before, keys(model=str(model), data=str(data))) == subtree(name, "dataset")


def test_a_prediction_that_changes_invalidates_the_stages_whose_reason_changes_and_those_below(name, keys, unchanged):
    for stage in stages_of(name).keys() - {"dataset", ROOT}:
        too_large = keys(reasons={stage: "predicted 'packed_bytes' is 9,000 B"})
        assert changed(unchanged, too_large) == subtree(name, stage)
        assert changed(too_large, keys(reasons={stage: "predicted 'packed_bytes' is 8,000 B"})) == subtree(name, stage)
        assert changed(too_large, keys(reasons={stage: "predicted 'packed_bytes' is 9,000 B"})) == set()


@pytest.mark.parametrize(
    ("argument", "predicts_again"),
    [
        ({"policy": "goals: []"}, True),
        ({"prescreen": "off"}, True),
        ({"sparsity": 0.25}, True),
        ({"clusters": 8}, True),
        ({"accelerator": "ethos-u65-256"}, True),
        ({"epochs": 7, "learning_rate": 0.5, "qat_epochs": 7, "qat_learning_rate": 0.5, "batch_size": 8}, False),
        ({"model_name": "other", "releases": "gs://bucket/x"}, False),
    ],
)
def test_what_is_predicted_anew(keys, unchanged, argument, predicts_again):
    assert (keys(**argument)["prescreen"] != unchanged["prescreen"]) == predicts_again
