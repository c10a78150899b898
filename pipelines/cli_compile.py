"""`collabopt compile` and `collabopt cluster-schema`."""

from pathlib import Path
from typing import Annotated

import typer

from collabopt.pipelines import PIPELINES
from collabopt.pipelines.cli_options import ClusterFile, ClusterOverrides


def compile_command(
    pipeline: Annotated[str | None, typer.Argument(help=f"One of {', '.join(PIPELINES)}.", show_default=False)] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="A .yaml or .yml file.")] = None,
    components: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of a pipeline: write every component, one file each.")
    ] = None,
    cluster: ClusterFile = None,
    cluster_set: ClusterOverrides = None,
) -> None:
    """Compile a pipeline, or with --components the components, for Kubeflow Pipelines."""
    if components is not None and (pipeline is not None or output is not None):
        raise typer.BadParameter("--components DIR writes every component; leave out PIPELINE and --output")
    if components is None and (pipeline is None or output is None):
        raise typer.BadParameter("give PIPELINE and --output FILE, or --components DIR")

    from collabopt.pipelines.cluster import read_cluster
    from collabopt.pipelines.compilation import ETCD_LIMIT_BYTES, compile_components, compile_pipeline

    settings = read_cluster(cluster, cluster_set or ())
    if components is not None:
        for file in compile_components(settings, components):
            print(file)
    elif pipeline is not None and output is not None:
        compile_pipeline(pipeline, settings, output)
        size = output.stat().st_size
        print(f"{output}: {size:,} bytes; etcd takes {ETCD_LIMIT_BYTES:,} for a run with its state")


def print_schema() -> None:
    """Print the JSON schema of the cluster settings, for editors."""
    import json

    from collabopt.pipelines.cluster import cluster_schema

    print(json.dumps(cluster_schema(), indent=2))
