"""Most activations alive at once: of real files, and of graphs with one difficulty each."""

from types import SimpleNamespace

import pytest

from collabopt.components.engine.deployed.activation_memory import activation_bytes, activation_bytes_of
from collabopt.components.engine.deployed.flatbuffer import Flatbuffer
from collabopt.components.engine.errors import CollaboptError


@pytest.fixture
def graph():
    """Makes a file out of tensors (name -> shape, type, variable?) and operators (inputs, outputs)."""
    from ai_edge_litert.schema_py_generated import TensorType

    def make(tensors, operators, inputs, outputs):
        order = list(tensors)
        indices = {**{name: number for number, name in enumerate(order)}, None: -1}

        def numbers(names):
            return [indices[name] for name in names]

        made = [
            SimpleNamespace(shape=shape, type=getattr(TensorType, kind), isVariable=bool(rest))
            for name, (shape, kind, *rest) in tensors.items()
        ]
        subgraph = SimpleNamespace(
            tensors=made,
            operators=[
                SimpleNamespace(opcodeIndex=0, inputs=numbers(read), outputs=numbers(written))
                for read, written in operators
            ],
            inputs=numbers(inputs),
            outputs=numbers(outputs),
        )
        code = SimpleNamespace(builtinCode=0, deprecatedBuiltinCode=0)
        return Flatbuffer(b"", SimpleNamespace(subgraphs=[subgraph], operatorCodes=[code]))

    return make


def test_of_a_chain_the_greatest_pair(nets):
    # int8: 8*8 in and 6*6*4 out of the convolution; float: four times as much.
    # elu: the convolution's output as float and its ELU, 6*6*4*4 bytes each.
    assert activation_bytes(nets["int8"]) == 64 + 144
    assert activation_bytes(nets["float"]) == 4 * (64 + 144)
    assert activation_bytes(nets["elu"]) == 2 * 4 * 144


def test_a_branch_keeps_its_tensor_alive_until_it_is_joined(graph):
    tensors = {name: ([10], "INT8") for name in ("in", "b", "c", "d", "out")}
    chain = [(["in"], ["b"]), (["b"], ["c"]), (["c"], ["d"]), (["d"], ["out"])]
    joined = [*chain[:3], (["d", "b"], ["out"])]
    assert activation_bytes_of(graph(tensors, chain, ["in"], ["out"])) == 20
    assert activation_bytes_of(graph(tensors, joined, ["in"], ["out"])) == 30


def test_inputs_live_from_the_start_and_outputs_to_the_end(graph):
    tensors = {
        "in": ([5], "INT8"),
        "late": ([100], "INT8"),
        "b": ([5], "INT8"),
        "c": ([5], "INT8"),
        "out": ([5], "INT8"),
    }
    operators = [(["in"], ["b"]), (["b"], ["c"]), (["c", "late"], ["out"])]
    assert activation_bytes_of(graph(tensors, operators, ["in", "late"], ["out"])) == 110
    assert activation_bytes_of(graph(tensors, operators, ["in", "late"], ["out", "b"])) == 115


def test_constants_do_not_count_and_variables_always_do(graph):
    tensors = {"in": ([4], "INT8"), "weights": ([1000], "INT8"), "b": ([4], "INT8"), "out": ([4], "INT8")}
    operators = [(["in", "weights", None], ["b"]), (["b"], ["out"])]
    assert activation_bytes_of(graph(tensors, operators, ["in"], ["out"])) == 8
    with_state = {**tensors, "state": ([3], "INT8", "variable")}
    assert activation_bytes_of(graph(with_state, operators, ["in"], ["out"])) == 11


def test_an_output_that_nothing_reads_lives_while_it_is_written(graph):
    tensors = {"in": ([4], "INT8"), "unused": ([50], "INT8"), "b": ([4], "INT8"), "out": ([4], "INT8")}
    operators = [(["in"], ["b", "unused"]), (["b"], ["out"])]
    assert activation_bytes_of(graph(tensors, operators, ["in"], ["out"])) == 58


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *[("INT4", 4), ("INT2", 2), ("BOOL", 7), ("INT16", 14), ("FLOAT16", 14), ("BFLOAT16", 14)],
        *[("FLOAT32", 28), ("INT64", 56), ("COMPLEX128", 112), ("STRING", 0)],
    ],
)
def test_values_take_the_bits_of_their_type(graph, kind, expected):
    assert activation_bytes_of(graph({"in": ([7], kind)}, [], ["in"], ["in"])) == expected


def test_a_tensor_without_shape_is_one_value(graph):
    assert activation_bytes_of(graph({"in": (None, "FLOAT32")}, [], ["in"], ["in"])) == 4


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(CollaboptError, match="not a TFLite model"):
        activation_bytes(b"PK\x03\x04 something else")
