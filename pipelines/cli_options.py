"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

from collabopt.pipelines import PIPELINES

DEFAULT_OUTPUT = Path("collabopt-output")
DEFAULT_RELEASES = "collabopt-releases"

ClusterFile = Annotated[
    Path | None,
    typer.Option(
        "--cluster", metavar="FILE", help="Settings of the cluster (YAML): image, resources, Secrets, retries, ..."
    ),
]

ClusterOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster-set", metavar="PATH=VALUE", help="One of these settings, as training.gpu.count=1; repeatable."
    ),
]

Example = Annotated[str | None, typer.Option("--example", help="Built-in model and data, for example `digits`.")]

LocalModel = Annotated[str | None, typer.Option("--model", help="Trained Keras model: .keras, .h5 or SavedModel.")]

LocalData = Annotated[str | None, typer.Option("--data", help="Data: npz, TFRecord, a directory of images, or `task`.")]

LocalReleases = Annotated[
    str, typer.Option("--releases", metavar="URI", help="Where releases are kept: gs://bucket/prefix or a directory.")
]

OutputDirectory = Annotated[Path, typer.Option("--output", metavar="DIR", help="Directory for the result.")]

Task = Annotated[str | None, typer.Option("--task", metavar="MODULE:ATTR", help="Losses, metrics and data of a task.")]

Pipeline = Annotated[str, typer.Option("--pipeline", help=f"One of {', '.join(PIPELINES)}.")]

Policy = Annotated[Path | None, typer.Option("--policy", metavar="FILE", help="Policy of the deployment gate (YAML).")]

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.PARAM=VALUE", help="A setting of one stage; repeatable.")
]

Plan = Annotated[
    Path | None,
    typer.Option("--plan", metavar="FILE", help="Settings of single layers (YAML), as `collabopt sensitivity` writes."),
]

Parameters = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the pipeline, as sparsity=0.7; repeatable."),
]

Space = Annotated[Path | None, typer.Option("--space", metavar="FILE", help="What the pipeline `search` tries (YAML).")]

Name = Annotated[str | None, typer.Option("--name", help="Name under which the winner is registered and released.")]


def sources(example: str | None, model: str | None, data: str | None) -> tuple[str, str]:
    """Model and data, of which an example brings both.

    Raises:
        typer.BadParameter: Both are given twice, or one of them is missing.
    """
    from collabopt.components.engine.fetch import EXAMPLE_SCHEME

    if example is not None:
        if model is not None or data is not None:
            raise typer.BadParameter("--example brings both model and data; leave out --model and --data")
        return f"{EXAMPLE_SCHEME}{example}", f"{EXAMPLE_SCHEME}{example}"
    if model is None or data is None:
        raise typer.BadParameter("give --example NAME, or both --model PATH and --data PATH")
    return model, data
