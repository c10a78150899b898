"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

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
