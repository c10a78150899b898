"""What `collabopt inspect` shows of a `.tflite` file."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from collabopt.components.engine.errors import CollaboptError

if TYPE_CHECKING:
    from collabopt.components.engine.records import DeployedModel, DeployedTensor

_NAME_WIDTH = 28


def inspect_file(path: Path) -> "DeployedModel":
    """Reads and inspects a file.

    Raises:
        CollaboptError: It cannot be read, is not a whole TFLite model, or `collabopt[engine]` is not installed.
    """
    content = _read(path)
    try:
        # Imported here because it needs the engine extra.
        from collabopt.components.engine.deployed.inspect import inspect_tflite

        return inspect_tflite(content)
    except ModuleNotFoundError as error:
        raise CollaboptError(
            "what reads TFLite models is not installed",
            where=f"missing: {error.name}",
            todo="pip install 'collabopt[engine]'",
        ) from error
    except CollaboptError as error:
        raise CollaboptError(error.what, where=str(path), todo=error.todo) from error


def print_inspection(deployed: "DeployedModel", console: Console) -> None:
    """Prints the weight tensors, what the file is spent on, its operators, and what is left in float."""
    console.print(Text(_sizes(deployed)))
    console.print(Text(_census(deployed)), soft_wrap=True)
    if deployed.weights:
        console.print(_weights(deployed))
        console.print(Text(_bound(deployed)))
    console.print(_contents(deployed))
    if deployed.float_reasons:
        console.print(_float_operators(deployed))


def _read(path: Path) -> bytes:
    todo = "name a .tflite file"
    if path.exists() and not path.is_file():
        raise CollaboptError("this is not a file", where=str(path), todo=todo)
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise CollaboptError("there is no such file", where=str(path), todo=todo) from error
    except OSError as error:
        raise CollaboptError(f"the file cannot be read: {error.strerror}", where=str(path), todo=todo) from error


def _sizes(deployed: "DeployedModel") -> str:
    return (
        f"{deployed.tflite_bytes:,} bytes, gzip {deployed.gzip_bytes:,}, zip {deployed.zip_bytes:,}, "
        f"packed {deployed.packed_bytes:,}; "
        f"{deployed.input_dtype} in, {deployed.output_dtype} out"
    )


def _weights(deployed: "DeployedModel") -> Table:
    table = _table("weights")
    for name in ("layer", "operator"):
        table.add_column(name, overflow="ellipsis")  # what gives way on a narrow terminal
    for name in ("type", "shape"):
        table.add_column(name, no_wrap=True)
    for name in ("zeros", "distinct", "a channel", "scales", "bits", "bytes", "packed"):
        table.add_column(name, justify="right", no_wrap=True)
    for tensor in deployed.weights:
        table.add_row(
            Text(_short(tensor.layer or tensor.name)),
            tensor.op.lower(),
            tensor.dtype,
            "x".join(str(size) for size in tensor.shape),
            f"{tensor.zero_fraction:.1%}",
            str(tensor.distinct_values),
            str(tensor.max_distinct_values_per_channel),
            _scales(tensor),
            f"{tensor.entropy_bits:.2f}",
            f"{tensor.stored_bytes:,}",
            f"{tensor.packed_bytes:,}",
        )
    return table


def _scales(tensor: "DeployedTensor") -> str:
    axis = "" if tensor.quantization_axis is None else f", axis {tensor.quantization_axis}"
    return f"{len(tensor.scales)}{axis}" if tensor.scales else "-"


def _bound(deployed: "DeployedModel") -> str:
    packed, bound = deployed.weight_packed_bytes, deployed.weight_entropy_bytes
    above = f" ({packed / bound - 1:+.1%})" if bound else ""
    return f"weights together {deployed.weight_bytes:,} bytes; entropy bound {bound:,}, packed {packed:,}{above}"


def _contents(deployed: "DeployedModel") -> Table:
    table = _table("what the bytes are for")
    table.add_column("what", no_wrap=True)
    for name in ("bytes", "share", "deflated"):
        table.add_column(name, justify="right", no_wrap=True)
    for category, size in deployed.contents.items():
        if size:
            share = f"{size / deployed.tflite_bytes:.1%}"
            table.add_row(category, f"{size:,}", share, f"{deployed.contents_deflated[category]:,}")
    return table


def _census(deployed: "DeployedModel") -> str:
    return "operators: " + ", ".join(f"{count} {name.lower()}" for name, count in deployed.operators.items())


def _float_operators(deployed: "DeployedModel") -> Table:
    table = _table("in float")
    table.add_column("operator (tensor)", overflow="ellipsis")
    table.add_column("reason")
    for operator, reason in deployed.float_reasons.items():
        table.add_row(Text(_short(operator, 2 * _NAME_WIDTH)), reason)
    return table


def _table(title: str) -> Table:
    return Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE)


def _short(name: str, width: int = _NAME_WIDTH) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"
