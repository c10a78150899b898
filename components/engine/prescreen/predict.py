"""Predictions for every leaf and configuration: one conversion per structure, each in a process of its own."""

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.forked import run_forked
from collabopt.components.engine.layer_patterns import LayerPatternError
from collabopt.components.engine.prescreen.recipe import Configuration, Recipe
from collabopt.components.engine.prescreen.records import PredictedFile, Prediction
from collabopt.components.engine.printed_to import printed_to

# What every process needs; imported once, before the processes are forked.
_PRELOADED = ("tensorflow", "tf_keras.layers", "ai_edge_litert.interpreter")

# fp32 models up to this size are converted several at a time.
_SMALL_BYTES = 64 * 2**20


def preload(log: Path | None = None) -> None:
    """Imports what forked processes would otherwise import each for itself.

    Args:
        log: File for what is printed on the way; None to let it print.

    Raises:
        RuntimeError: TensorFlow has computed in this process; its threads are not in a fork, which would wait for them.
    """
    with printed_to(log):
        for module in _PRELOADED:
            importlib.import_module(module)
    if _has_computed():
        raise RuntimeError("predictions fork, and TensorFlow has computed in this process: make them in another one")


def _has_computed() -> bool:
    """TensorFlow refuses another number of threads from its first computation on."""
    from tensorflow.config import threading

    threads = threading.get_inter_op_parallelism_threads()
    try:
        threading.set_inter_op_parallelism_threads(threads + 1)
    except RuntimeError:
        return True
    threading.set_inter_op_parallelism_threads(threads)
    return False


def predict(
    recipes: Mapping[str, Mapping[Recipe, Configuration]],
    baseline: Path,
    dataset: Path,
    *,
    allow_lambda: bool = False,
    log: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[Prediction]:
    """Makes the file of every recipe, once for all leaves that have it.

    What cannot be made, as more clusters than a model has distinct weights, is a prediction that says why; a pattern of
    layers that fits none is an error. This process only imports TensorFlow; see `preload`.

    Args:
        recipes: Leaf -> recipe -> its configuration; see `recipes_over`.
        baseline: Directory of the baseline's fp32 model.
        dataset: `Dataset` directory.
        allow_lambda: Whether the baseline was accepted with Lambda layers.
        log: File for what the processes print; None to let them print.
        progress: Called with the number of files that are done, and of all.

    Returns:
        One per leaf and configuration, in the order given.

    Raises:
        CollaboptError: None of the files can be made, a pattern matches no layer, or a process has died.
    """
    preload(log)
    distinct = list(dict.fromkeys(recipe for of_leaf in recipes.values() for recipe in of_leaf))
    works = [functools.partial(_predict_file, baseline, dataset, recipe, allow_lambda) for recipe in distinct]
    files: dict[Recipe, dict[str, Any]] = {}
    progress(0, len(distinct))
    for number, file in run_forked(works, _processes(baseline), log):
        files[distinct[number]] = file
        progress(len(files), len(distinct))
    reasons = [file["infeasible"] for file in files.values()]
    if all(reasons):
        raise CollaboptError(
            f"no leaf can be made in any of these configurations: {reasons[0]}",
            todo="choose other values, or check the model with `collabopt run`",
        )
    return [
        Prediction(leaf=leaf, configuration=configuration, **files[recipe])
        for leaf, of_leaf in recipes.items()
        for recipe, configuration in of_leaf.items()
    ]


def _processes(baseline: Path) -> int:
    """As many as there are processors, but one where each takes the memory of several copies of a large model."""
    size = sum(path.stat().st_size for path in baseline.rglob("*") if path.is_file())
    return len(os.sched_getaffinity(0)) if size <= _SMALL_BYTES else 1


def _predict_file(baseline: Path, dataset: Path, recipe: Recipe, allow_lambda: bool) -> dict[str, Any]:
    """In a forked process."""
    from collabopt.components.engine.datasets.store import StoredDataset
    from collabopt.components.engine.models.store import load_stage_model
    from collabopt.components.engine.prescreen.measure import measure
    from collabopt.components.engine.prescreen.untrained import untrained_leaf
    from collabopt.components.engine.session import make_deterministic

    make_deterministic(0)
    model = load_stage_model(baseline, allow_lambda=allow_lambda)
    try:
        leaf = untrained_leaf(model, StoredDataset(dataset), recipe)
    except LayerPatternError:
        raise
    except CollaboptError as error:
        file = PredictedFile(accelerator=recipe.accelerator, infeasible=error.what)
    else:
        file = measure(leaf, recipe.accelerator)
    return {**file.model_dump(), "recipe": recipe.name}
