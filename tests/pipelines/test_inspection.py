import builtins
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from collabopt.components.engine.records import DeployedModel

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def inspect(collabopt: Command) -> Command:
    """Runs `collabopt inspect` in an empty directory; returns exit code, output and errors."""
    return functools.partial(collabopt, "inspect")


@pytest.fixture
def tflite(tmp_path: Path) -> Path:
    """One int8 fully connected layer, half of whose 64 weights are zero; its output is float."""
    file = tmp_path / "dense.tflite"
    file.write_bytes(_fully_connected())
    return file


def _fully_connected() -> bytes:
    def tensor(name, dtype, shape, buffer, scale=None):
        quantization = schema.QuantizationParametersT(scale=scale, zeroPoint=None if scale is None else [0])
        return schema.TensorT(name=name, type=dtype, shape=shape, buffer=buffer, quantization=quantization)

    types = schema.TensorType
    graph = schema.SubGraphT(
        tensors=[
            tensor("input", types.INT8, [1, 16], 0, [0.5]),
            tensor("model/[bold]dense/MatMul", types.INT8, [4, 16], 1, [0.25]),
            tensor("output", types.FLOAT32, [1, 4], 0),
        ],
        inputs=[0],
        outputs=[2],
        operators=[schema.OperatorT(opcodeIndex=0, inputs=[0, 1, -1], outputs=[2])],
    )
    code = schema.BuiltinOperator.FULLY_CONNECTED
    model = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code)],
        subgraphs=[graph],
        buffers=[schema.BufferT(), schema.BufferT(data=np.tile([0, 3], 32).astype(np.uint8))],
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_the_table_shows_weights_bytes_and_what_is_in_float(inspect: Command, tflite: Path):
    code, output, errors = inspect(str(tflite))
    assert (code, errors) == (0, "")
    row = next(line.split() for line in output.splitlines() if "[bold]dense" in line)
    assert row == ["[bold]dense", "fully_connected", "int8", "4x16", "50.0%", "2", "2", "1", "1.00", "64", "7"]
    assert "weights together 64 bytes; entropy bound 8, packed 7 (-12.5%)" in output
    assert f"{tflite.stat().st_size:,} bytes, gzip" in output
    assert "FULLY_CONNECTED (output)" in output
    assert "its output has no quantization range" in output
    assert "graph and alignment" in output
    assert "metadata" not in output, "what a file does not hold takes no row"


def test_the_table_is_not_cut_where_there_is_no_terminal(tflite: Path):
    ended = subprocess.run(
        [sys.executable, "-c", "from collabopt.pipelines.cli import main; main()", "inspect", str(tflite)],
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0
    assert "…" not in ended.stdout
    assert "\x1b" not in ended.stdout


def test_json_is_the_record_and_nothing_else(inspect: Command, tflite: Path):
    code, output, errors = inspect(str(tflite), "--json")
    assert (code, errors) == (0, "")
    deployed = DeployedModel.model_validate_json(output)
    assert json.loads(output)["weights"][0]["scales"] == [0.25]
    assert deployed.weights[0].layer == "[bold]dense"
    assert sum(deployed.contents.values()) == tflite.stat().st_size


@pytest.mark.parametrize("option", [[], ["--json"]], ids=["table", "json"])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.tflite", "there is no such file"),
        (".", "not a file"),
        ("empty.tflite", "not a TFLite model"),
        ("other.zip", "not a TFLite model"),
        ("cut.tflite", "damaged"),
    ],
)
def test_what_cannot_be_inspected_is_refused(
    inspect: Command, tflite: Path, name: str, expected: str, option: list[str]
):
    (tflite.parent / "empty.tflite").write_bytes(b"")
    (tflite.parent / "other.zip").write_bytes(b"PK\x03\x04 something else")
    (tflite.parent / "cut.tflite").write_bytes(tflite.read_bytes()[:200])
    code, output, errors = inspect(name, *option)
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert expected in errors
    assert f"where: {name}" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("package", ["numpy", "ai_edge_litert"])
def test_without_the_engine_it_says_what_to_install(
    inspect: Command, tflite: Path, monkeypatch: pytest.MonkeyPatch, package: str
):
    for module in [name for name in sys.modules if name.startswith("collabopt.components.engine.deployed.")]:
        monkeypatch.delitem(sys.modules, module)
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    code, output, errors = inspect(str(tflite))
    assert (code, output) == (1, "")
    assert f"missing: {package}" in errors
    assert "pip install 'collabopt[engine]'" in errors


def test_no_tensorflow_is_imported(tflite: Path):
    script = (
        "import sys\nfrom collabopt.pipelines.cli import main\n"
        "try:\n    main()\nfinally:\n    print([m for m in ('tensorflow', 'kfp', 'mlflow') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script, "inspect", str(tflite)], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]"
