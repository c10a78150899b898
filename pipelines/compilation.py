"""Pipelines and components as files for Kubeflow Pipelines."""

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kfp.compiler import Compiler
from kfp.dsl.graph_component import GraphComponent

from collabopt import components
from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines import SEARCH, load_pipeline
from collabopt.pipelines.arguments import check_pipeline
from collabopt.pipelines.cluster import ClusterSettings
from collabopt.pipelines.placement import on_cluster

ETCD_LIMIT_BYTES = 1_572_864
"""What etcd takes as one object by default (`--max-request-bytes`); a run is one object, with its state."""

_SUFFIXES = (".yaml", ".yml")


def build_pipeline(name: str, cluster: ClusterSettings) -> GraphComponent:
    """A pipeline of the catalogue with the settings of a cluster.

    Args:
        name: Its name.
        cluster: The settings.
    """
    if name == SEARCH:
        from collabopt.pipelines.search import search_pipeline

        return on_cluster(search_pipeline(cluster.search), cluster)
    return on_cluster(load_pipeline(name), cluster)


def compile_pipeline(name: str, cluster: ClusterSettings, file: Path) -> None:
    """Writes a pipeline of the catalogue as Kubeflow reads it, whole or not at all.

    Args:
        name: Its name.
        cluster: What its pods need of the cluster.
        file: A .yaml or .yml file, made or replaced.

    Raises:
        CollaboptError: There is no such pipeline, or the file cannot be written.
    """
    check_pipeline(name)
    if file.suffix not in _SUFFIXES:
        raise CollaboptError(
            f"a compiled pipeline is YAML, not '{file.suffix}'", where=str(file), todo="end its name in .yaml or .yml"
        )
    if file.is_dir():
        raise CollaboptError("a directory is where the file is to be written", where=str(file), todo="name a file")
    pipeline = build_pipeline(name, cluster)
    with _workshop(file) as workshop:
        Compiler().compile(pipeline, str(workshop / file.name))
        os.replace(workshop / file.name, file)


def compile_components(cluster: ClusterSettings, directory: Path) -> list[Path]:
    """Writes every component of the catalogue, all of them or none.

    Args:
        cluster: Its image is that of the components; anything else is set on the tasks of a pipeline.
        directory: Made if need be, in a directory that exists. Files of the same names in it are replaced.

    Returns:
        The files: `<component>.yaml` each.

    Raises:
        CollaboptError: They cannot be written.
    """
    if directory.exists() and not directory.is_dir():
        raise CollaboptError(
            "a file is where the directory is to be", where=str(directory), todo="name another directory"
        )
    with _workshop(directory / "component" if directory.is_dir() else directory) as workshop:
        names = [f"{name}.yaml" for name in components.CATALOGUE]
        for component, name in zip(components.CATALOGUE, names, strict=True):
            made = copy.deepcopy(getattr(components, component))
            if cluster.image:
                made.component_spec.implementation.container.image = cluster.image
            Compiler().compile(made, str(workshop / name))
        directory.mkdir(exist_ok=True)
        for name in names:
            os.replace(workshop / name, directory / name)
    return [directory / name for name in names]


@contextlib.contextmanager
def _workshop(target: Path) -> Iterator[Path]:
    """A directory beside the target, gone in the end: what is made there takes its place by a mere renaming."""
    try:
        with tempfile.TemporaryDirectory(prefix=".collabopt-", dir=target.absolute().parent) as workshop:
            yield Path(workshop)
    except OSError as error:
        raise CollaboptError(
            f"it cannot be written there: {error.strerror}", where=str(target), todo="name another place"
        ) from error
