"""The pipelines by name. Nothing here imports TensorFlow; Kubeflow Pipelines is imported when one is loaded."""

import dataclasses
import importlib
from typing import Any

from collabopt.pipelines.parameters import Parameters, SearchParameters
from collabopt.pipelines.tree import CLUSTERING, PRUNING, QUANTIZATION, ROOT, TREE

SEARCH = "search"

PIPELINES = {
    "exhaustive": "collabopt.pipelines.exhaustive:exhaustive",
    "staged": "collabopt.pipelines.staged:staged",
    "pruning": "collabopt.pipelines.branches:pruning",
    "clustering": "collabopt.pipelines.branches:clustering",
    "quantization": "collabopt.pipelines.branches:quantization",
    "search": "collabopt.pipelines.search:search",
}
_TREES = {
    "exhaustive": TREE,
    "staged": TREE,
    "pruning": PRUNING,
    "clustering": CLUSTERING,
    "quantization": QUANTIZATION,
    "search": TREE,
}


def load_pipeline(name: str) -> Any:
    """Imports a pipeline of the catalogue and returns the KFP pipeline function."""
    module, _, attribute = PIPELINES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def parameters_of(name: str) -> dict[str, Any]:
    """Parameters of a pipeline of the catalogue, with their defaults; a search takes a few more."""
    if name not in PIPELINES:
        raise KeyError(name)
    return {**dataclasses.asdict(SearchParameters() if name == SEARCH else Parameters()), "settings": {}}


def stages_of(name: str) -> dict[str, str]:
    """Every stage of a pipeline that has settings -> its technique."""
    stages = {stage.name: stage.technique.name for stage in _TREES[name]}
    return {"dataset": "load_dataset", ROOT: "import_model", **stages}
