"""The one image that every component runs in, and the decorator that says so."""

import ast
import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.python_component import PythonComponent

from collabopt.components.engine.session import PIPELINE_NAME_VARIABLE, PIPELINE_RUN_ID_VARIABLE

IMAGE = os.environ.get("COLLABOPT_IMAGE") or f"ghcr.io/collabopt/collabopt:{importlib.metadata.version('collabopt')}"

# Kubeflow labels every pod with its run, and Argo with the workflow that Kubeflow has made of it: `exhaustive-x7k2p`.
_LABELS = {
    PIPELINE_RUN_ID_VARIABLE: "metadata.labels['pipeline/runid']",
    PIPELINE_NAME_VARIABLE: "metadata.labels['workflows.argoproj.io/workflow']",
}


class StageComponent(PythonComponent):
    """A component whose pods know which run they belong to.

    Not by an argument, which would make every run miss every cache.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> dsl.PipelineTask:
        """A task of the pipeline that is being built; arguments as those of the component, by name."""
        task = super().__call__(*args, **kwargs)
        for variable, label in _LABELS.items():
            kubernetes.use_field_path_as_env(task, env_name=variable, field_path=label)
        return task


def component(function: Callable[..., Any]) -> StageComponent:
    """`dsl.component` on the collabopt image, which brings everything: nothing is installed when a stage starts."""
    made = dsl.component(function, base_image=IMAGE, install_kfp_package=False)
    command = made.component_spec.implementation.container.command
    command[-1] = _without_docstring(command[-1])
    return StageComponent(made.component_spec, made.python_func)


def _without_docstring(source: str) -> str:
    """The program that runs in the pod, without what the spec says already: half of its size, and no cache key."""
    (function,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    if ast.get_docstring(function) is None:
        return source
    docstring = function.body[0]
    lines = source.splitlines(keepends=True)
    del lines[docstring.lineno - 1 : docstring.end_lineno]
    return "".join(lines)
