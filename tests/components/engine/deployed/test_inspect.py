"""What the inspector says of weights, bytes and float operators, checked against what is known of the file."""

import gzip
import io
import math
import time
import zipfile
import zlib

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from collabopt.components.engine.deployed.convert import to_int8
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.deployed.layer_name import layer_of
from collabopt.components.engine.deployed.weights import read_weights
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import DeployedModel


@pytest.fixture(scope="module")
def model():
    """A convolution with its bias, an operator without int8 kernel, and a Dense layer with four distinct weights."""
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(1)
    inputs = layers.Input((8, 8, 2))
    x = layers.Conv2D(8, 3, bias_initializer="random_uniform", name="conv")(inputs)
    x = layers.Flatten()(tf.sin(x))
    model = tf_keras.Model(inputs, layers.Dense(16, name="dense")(x))
    values = np.random.default_rng(1).choice([-0.5, -0.25, 0.25, 0.5], (288, 16)).astype(np.float32)
    model.get_layer("dense").set_weights([values, np.zeros(16, np.float32)])
    return model


def converted(model, *, quantized=True, float16=False):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if float16:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    elif quantized:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        samples = np.random.default_rng(2).uniform(size=(8, 1, *model.input_shape[1:])).astype(np.float32)
        converter.representative_dataset = lambda: ([sample] for sample in samples)
    return bytes(converter.convert())


@pytest.fixture(scope="module")
def int8(model):
    return converted(model)


@pytest.fixture(scope="module")
def deployed(int8) -> DeployedModel:
    return inspect_tflite(int8)


def test_tensors_are_described_by_layer_scales_and_entropy(deployed, int8):
    conv, dense = deployed.weights
    assert [tensor.layer for tensor in deployed.weights] == ["conv", "dense"]
    assert (conv.quantization_axis, len(conv.scales), conv.stored_bytes) == (0, 8, 144)
    assert (dense.distinct_values, dense.stored_bytes) == (4, 288 * 16)
    assert dense.entropy_bits == pytest.approx(2, abs=0.01)
    for described, read in zip(deployed.weights, read_weights(int8), strict=True):
        assert described.scales == read.scales.tolist()
        assert described.deflated_bytes == len(zlib.compress(read.values.tobytes(), 9))


def test_weights_are_measured_against_their_entropy(deployed, int8):
    bits = sum(tensor.entropy_bits * math.prod(tensor.shape) for tensor in deployed.weights)
    assert deployed.weight_entropy_bytes == math.ceil(bits / 8)
    assert deployed.weight_bytes == sum(tensor.stored_bytes for tensor in deployed.weights)
    deflated = [len(zlib.compress(read.values.tobytes(), 9)) for read in read_weights(int8)]
    assert deployed.weight_deflated_bytes == sum(deflated) > deployed.weight_entropy_bytes
    assert deployed.contents_deflated["weights"] == sum(deflated)


def test_sizes_are_those_that_the_tools_give(deployed, int8):
    assert deployed.gzip_bytes == len(gzip.compress(int8, 9))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.tflite", int8)
    assert deployed.zip_bytes == len(archive.getvalue())


def test_every_byte_has_one_use(deployed, int8):
    assert sum(deployed.contents.values()) == len(int8) == deployed.tflite_bytes
    assert deployed.contents.keys() == deployed.contents_deflated.keys()
    assert all((deployed.contents_deflated[name] > 0) == (size > 0) for name, size in deployed.contents.items())


def test_bytes_are_counted_as_what_they_are(deployed, int8):
    model = schema.ModelT.InitFromPackedBuf(bytearray(int8), 0)
    graph = model.subgraphs[0]
    scales = sum(len(tensor.quantization.scale) for tensor in graph.tensors if tensor.quantization.scale is not None)
    named = [tensor.name for tensor in graph.tensors] + [metadata.name for metadata in model.metadata]
    named += [graph.name or b"", model.description, model.signatureDefs[0].signatureKey]
    named += [end.name for end in (*model.signatureDefs[0].inputs, *model.signatureDefs[0].outputs)]
    contents = deployed.contents
    assert contents["weights"] == 144 + 288 * 16
    assert contents["biases"] == 4 * (8 + 16 * _has_bias(graph))
    assert (contents["scales"], contents["zero points"]) == (4 * scales, 8 * scales)
    assert contents["names"] == sum(len(name) for name in named)
    assert contents["metadata"] == sum(len(model.buffers[metadata.buffer].data) for metadata in model.metadata)
    assert contents["sparse indices"] == 0


def _has_bias(graph):
    """The converter drops the Dense layer's bias, which is zero."""
    return any(len(operator.inputs) == 3 and operator.inputs[2] >= 0 for operator in graph.operators[-1:])


def test_what_tables_share_counts_once(int8):
    """Both weight tensors on one buffer."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(int8), 0)
    conv, dense = (model.subgraphs[0].tensors[tensor.index] for tensor in read_weights(int8))
    conv.buffer = dense.buffer
    dense.shape, dense.quantization.scale = [16, 9], dense.quantization.scale[:16]
    conv.shape = [8, 3, 3, 2]
    model.buffers[dense.buffer].data = np.resize(model.buffers[dense.buffer].data, 144)
    shared = inspect_tflite(_packed(model))
    assert shared.contents["weights"] == shared.weight_bytes == 144
    assert shared.weight_deflated_bytes == shared.weights[0].deflated_bytes == shared.weights[1].deflated_bytes
    assert sum(shared.contents.values()) == shared.tflite_bytes


def test_an_operator_without_int8_kernel_is_named_with_its_neighbours(deployed):
    assert "SIN" in deployed.float_operators
    reasons = {operator.split(" (")[0]: reason for operator, reason in deployed.float_reasons.items()}
    assert reasons["SIN"] == "there is no int8 kernel for it"
    assert any(reason == "hands on to SIN, computed in float" for reason in deployed.float_reasons.values())
    assert any(reason == "the model's output is float" for reason in deployed.float_reasons.values())
    assert len(deployed.float_reasons) == len(deployed.float_operators)
    assert deployed.float_weights == []


def test_a_float_file_says_that_nothing_is_quantized(model):
    deployed = inspect_tflite(converted(model, quantized=False))
    assert set(deployed.float_reasons.values()) == {"nothing in this file is quantized"}
    assert len(deployed.float_weights) == 2
    assert deployed.weights[0].scales == []


def test_a_float16_file_unpacks_its_constants(model):
    deployed = inspect_tflite(converted(model, float16=True))
    unpacked = [reason for name, reason in deployed.float_reasons.items() if name.startswith("DEQUANTIZE")]
    assert set(unpacked) == {"unpacks a constant that is stored as float16"}
    assert len(deployed.float_weights) == 2
    assert deployed.contents["biases"] >= 2 * 8


def test_an_output_without_range_is_the_reason(int8):
    model = schema.ModelT.InitFromPackedBuf(bytearray(int8), 0)
    graph = model.subgraphs[0]
    output = graph.tensors[graph.operators[1].outputs[0]]
    output.type, output.quantization = schema.TensorType.FLOAT32, None
    reasons = inspect_tflite(_packed(model)).float_reasons
    assert "its weights are quantized, but its output has no quantization range" in reasons.values()


def test_a_report_reads_back_as_it_was(deployed):
    assert DeployedModel.model_validate_json(deployed.model_dump_json()) == deployed


@pytest.mark.parametrize(
    ("name", "operator", "layer"),
    [
        ("model/conv/Conv2D", "CONV_2D", "conv"),
        (
            "model/quant_conv/Conv2D;model/quant_conv/LastValueQuant/FakeQuantWithMinMaxVarsPerChannel",
            "CONV_2D",
            "conv",
        ),
        ("model/bn/FusedBatchNormV3;model/up/conv2d_transpose11", "TRANSPOSE_CONV", "up"),
        ("model/up/conv1d_transpose", "TRANSPOSE_CONV", "up"),
        ("model/conv2d_transpose/conv2d_transpose", "TRANSPOSE_CONV", "conv2d_transpose"),
        ("model/r2/Relu;model/bn2/FusedBatchNormV3;model/dw/depthwise", "DEPTHWISE_CONV_2D", "dw"),
        ("model/pointwise/Conv2D;model/dw/depthwise", "DEPTHWISE_CONV_2D", "dw"),
        ("model/sep/separable_conv2d/depthwise", "DEPTHWISE_CONV_2D", "sep"),
        ("model/sep/separable_conv2d", "CONV_2D", "sep"),
        ("sequential/d3/Tensordot/MatMul", "FULLY_CONNECTED", "d3"),
        ("sequential/c3/Conv3D/ReadVariableOp", "CONV_3D", "c3"),
        ("sequential_1/inner/dense_1/MatMul1", "FULLY_CONNECTED", "dense_1"),
        ("functional_1/conv2d_1/convolution", "CONV_2D", "conv2d_1"),
        ("model/shared/MatMul_1", "FULLY_CONNECTED", "shared"),
        ("model/attention/key/einsum/Einsum2", "FULLY_CONNECTED", "key"),
        ("model/relu/Relu;model/grouped/BiasAdd/ReadVariableOp;model/grouped/BiasAdd;Conv2D1", "CONV_2D", "grouped"),
        ("StatefulPartitionedCall:01", "FULLY_CONNECTED", ""),
        ("arith.constant3", "CONV_2D", ""),
        ("", "CONV_2D", ""),
    ],
)
def test_layers_are_read_from_tensor_names(name, operator, layer):
    assert layer_of(name, operator) == layer


def test_a_layer_whose_tensor_is_named_after_nothing_is_read_from_what_is_around_it():
    """Weights of a convolution in groups, and of a layer that is called twice."""
    import tf_keras

    layers = tf_keras.layers
    image = layers.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=2, activation="relu", bias_initializer="ones", name="grouped")(image)
    twice = layers.Conv2D(8, 3, padding="same", activation="relu", bias_initializer="ones", name="twice")
    samples = np.random.default_rng(0).uniform(size=(4, 1, 8, 8, 4)).astype(np.float32)
    tflite = to_int8(tf_keras.Model(image, twice(twice(x))), lambda: ([sample] for sample in samples))
    grouped, shared = inspect_tflite(tflite).weights
    assert not any("grouped" in tensor.name or "twice" in tensor.name for tensor in (grouped, shared))
    assert (grouped.layer, shared.layer) == ("grouped", "twice")


@pytest.mark.parametrize("kept", [9, 40, 500, 0.5, 0.9])
def test_a_truncated_file_is_refused(int8, kept):
    with pytest.raises(CollaboptError, match="damaged"):
        inspect_tflite(int8[: int(kept * len(int8)) if isinstance(kept, float) else kept])


def test_damage_ends_in_an_answer_or_an_error_and_never_hangs(int8):
    random = np.random.default_rng(8)
    refused = 0
    for _ in range(60):
        damaged = np.frombuffer(int8, np.uint8).copy()
        places = random.integers(8, len(damaged), random.integers(1, 30))
        damaged[places] = random.choice([0, 127, 128, 255], len(places))
        began = time.monotonic()
        try:
            inspect_tflite(damaged.tobytes())
        except CollaboptError:
            refused += 1
        assert time.monotonic() - began < 20
    assert refused > 10


def test_vectors_that_share_their_entries_are_refused(int8):
    """A file of a few kilobytes whose thousand subgraphs are one would unpack without end."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(int8), 0)
    builder = flatbuffers.Builder(1024)
    tensors = _vector(builder, [model.subgraphs[0].tensors[0].Pack(builder)] * 1000)
    schema.SubGraphStart(builder)
    schema.SubGraphAddTensors(builder, tensors)
    subgraphs = _vector(builder, [schema.SubGraphEnd(builder)] * 1000)
    schema.ModelStart(builder)
    schema.ModelAddSubgraphs(builder, subgraphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    began = time.monotonic()
    with pytest.raises(CollaboptError, match="damaged"):
        inspect_tflite(bytes(builder.Output()))
    assert time.monotonic() - began < 5


def _vector(builder, offsets):
    builder.StartVector(4, len(offsets), 4)
    for offset in offsets:
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _packed(model):
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
