"""Weights read out of files that the converter writes: dense, sparse-encoded, float16; and int4, packed by hand."""

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from collabopt.components.engine.deployed.weights import read_weights


@pytest.fixture(scope="module")
def model():
    """Kernels of which nine in ten weights are zero: random in the convolutions, in blocks of 16 in the Dense layer."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(3)
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(16, 3, activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2DTranspose(8, 3, name="transposed")(x)
    model = tf_keras.Model(inputs, layers.Dense(16, name="dense")(layers.Flatten()(x)))
    random = np.random.default_rng(4)
    for name, block in (("conv", 1), ("transposed", 1), ("dense", 16)):
        kernel, bias = model.get_layer(name).get_weights()
        kept = random.uniform(size=(kernel.shape[0] // block, *kernel.shape[1:])) < 0.1
        model.get_layer(name).set_weights([kernel * np.repeat(kept, block, axis=0), bias])
    return model


def converted(model, *optimizations, int8=False, float16=False):
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [getattr(tf.lite.Optimize, name) for name in optimizations]
    if float16:
        converter.target_spec.supported_types = [tf.float16]
    if int8:
        samples = np.random.default_rng(5).uniform(size=(8, 1, *model.input_shape[1:])).astype(np.float32)
        converter.representative_dataset = lambda: ([sample] for sample in samples)
    return bytes(converter.convert())


@pytest.fixture(scope="module")
def float32(model):
    return converted(model)


@pytest.fixture(scope="module")
def int8(model):
    return converted(model, "DEFAULT", int8=True)


def kernels(model):
    """The kernels as TFLite lays them out, in the order of execution."""
    found = {name: model.get_layer(name).get_weights()[0] for name in ("conv", "depthwise", "transposed", "dense")}
    return [
        found["conv"].transpose(3, 0, 1, 2),
        found["depthwise"].reshape(1, 3, 3, -1),
        found["transposed"].transpose(2, 0, 1, 3),
        found["dense"].T,
    ]


def edited(tflite, edit):
    """The file after `edit(model)` has changed it."""
    model = schema.ModelT.InitFromPackedBuf(bytearray(tflite), 0)
    edit(model)
    builder = flatbuffers.Builder(len(tflite))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def weight_tensor(model, index):
    return model.subgraphs[0].tensors[index]


def test_float_weights_are_those_of_the_keras_model(model, float32):
    weights = read_weights(float32)
    assert [(tensor.op, tensor.channel_axis) for tensor in weights] == [
        ("CONV_2D", 0),
        ("DEPTHWISE_CONV_2D", 3),
        ("TRANSPOSE_CONV", 0),
        ("FULLY_CONNECTED", 0),
    ]
    for tensor, kernel in zip(weights, kernels(model), strict=True):
        np.testing.assert_array_equal(tensor.values, kernel)
        assert (tensor.dtype, len(tensor.scales), tensor.quantization_axis) == ("float32", 0, None)
        assert tensor.stored_bytes == kernel.nbytes


def test_channels_are_rows(model, float32):
    conv, depthwise, _, dense = read_weights(float32)
    np.testing.assert_array_equal(conv.channels[5], kernels(model)[0][5].ravel())
    np.testing.assert_array_equal(depthwise.channels[5], kernels(model)[1][0, :, :, 5].ravel())
    assert dense.channels.shape == dense.values.shape


def test_int8_weights_come_with_one_scale_per_channel(model, int8):
    for tensor, kernel in zip(read_weights(int8), kernels(model), strict=True):
        axis = tensor.channel_axis
        assert (tensor.dtype, tensor.zero_point, tensor.quantization_axis) == ("int8", 0, axis)
        assert len(tensor.scales) == tensor.values.shape[axis] == len(tensor.channels)
        real = tensor.channels * tensor.scales[:, np.newaxis]
        expected = np.moveaxis(kernel, axis, 0).reshape(len(real), -1)
        assert (np.abs(real - expected) <= tensor.scales[:, np.newaxis] * 0.51).all()


def test_one_scale_for_the_tensor_has_no_axis(int8):
    index = read_weights(int8)[0].index

    def share_scale(model):
        quantization = weight_tensor(model, index).quantization
        quantization.scale, quantization.zeroPoint = quantization.scale[:1], quantization.zeroPoint[:1]

    conv = read_weights(edited(int8, share_scale))[0]
    assert (len(conv.scales), conv.quantization_axis) == (1, None)


@pytest.mark.parametrize("quantized", [True, False], ids=["int8", "float32"])
def test_sparse_encoded_weights_are_those_of_the_dense_file(model, float32, int8, quantized):
    optimizations = ["DEFAULT", "EXPERIMENTAL_SPARSITY"] if quantized else ["EXPERIMENTAL_SPARSITY"]
    sparse = read_weights(converted(model, *optimizations, int8=quantized))
    assert [tensor.sparse_encoded for tensor in sparse] == [True, False, True, True]
    for tensor, dense in zip(sparse, read_weights(int8 if quantized else float32), strict=True):
        np.testing.assert_array_equal(tensor.values, dense.values)
        assert (tensor.op, tensor.values.dtype) == (dense.op, dense.values.dtype)
        np.testing.assert_array_equal(tensor.scales, dense.scales)
        assert tensor.stored_bytes < dense.stored_bytes or not tensor.sparse_encoded


def test_float16_weights_are_found_behind_dequantize(model):
    weights = read_weights(converted(model, "DEFAULT", float16=True))
    assert [tensor.op for tensor in weights] == ["CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED"]
    for tensor, kernel in zip(weights, kernels(model), strict=True):
        assert tensor.dtype == "float16"
        np.testing.assert_array_equal(tensor.values, kernel.astype(np.float16))


def test_sparse_float16_weights_are_found_behind_both(model):
    sparse = read_weights(converted(model, "DEFAULT", "EXPERIMENTAL_SPARSITY", float16=True))
    assert [tensor.sparse_encoded for tensor in sparse] == [True, False, True, True]
    for tensor, kernel in zip(sparse, kernels(model), strict=True):
        np.testing.assert_array_equal(tensor.values, kernel.astype(np.float16))


@pytest.mark.parametrize(("dtype", "low", "high", "bits"), [("INT4", -8, 7, 4), ("INT2", -2, 1, 2)])
def test_packed_weights_are_unpacked_lowest_bits_first(int8, dtype, low, high, bits):
    """One channel is cut off, so that the last byte is not full."""
    depthwise = read_weights(int8)[1]
    values = np.random.default_rng(6).integers(low, high + 1, (1, 3, 3, 15), dtype=np.int8)
    per_byte = 8 // bits
    padded = np.resize(np.append(values.ravel(), np.zeros(per_byte, np.int8)), -(-values.size // per_byte) * per_byte)
    fields = (padded.astype(np.uint8) & (2**bits - 1)).reshape(-1, per_byte)
    packed = sum(fields[:, i].astype(int) << (bits * i) for i in range(per_byte)).astype(np.uint8)

    def pack(model):
        tensor = weight_tensor(model, depthwise.index)
        tensor.type, tensor.shape = getattr(schema.TensorType, dtype), list(values.shape)
        tensor.quantization.scale = tensor.quantization.scale[:15]
        model.buffers[tensor.buffer].data = packed

    read = read_weights(edited(int8, pack))[1]
    assert (read.dtype, read.values.dtype, read.stored_bytes) == (dtype.lower(), np.int8, len(packed))
    np.testing.assert_array_equal(read.values, values)


def test_a_layer_that_is_called_twice_is_listed_once():
    import tf_keras

    dense = tf_keras.layers.Dense(4, name="twice")
    inputs = tf_keras.layers.Input((4,))
    weights = read_weights(converted(tf_keras.Model(inputs, dense(dense(inputs)))))
    assert [tensor.op for tensor in weights] == ["FULLY_CONNECTED"]


def test_what_a_model_computes_from_its_input_is_no_weight():
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.layers.Input((4, 4))
    outputs = tf.matmul(inputs, inputs, transpose_b=True)
    assert read_weights(converted(tf_keras.Model(inputs, outputs))) == []


def test_a_constant_operand_of_a_matrix_product_is_a_weight():
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.layers.Input((3, 4, 5))
    constant = np.random.default_rng(7).uniform(size=(1, 3, 5, 2)).astype(np.float32)
    (tensor,) = read_weights(converted(tf_keras.Model(inputs, tf.matmul(inputs, tf.constant(constant)))))
    stored = tensor.values if tensor.values.shape == constant.shape else np.swapaxes(tensor.values, -1, -2)
    np.testing.assert_array_equal(stored, constant)
    assert len(tensor.channels) == 2


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        ([0] * 540, 0.0),
        ([0, 1] * 270, 1.0),
        ([0, 0, 1, 2] * 135, 1.5),
        (list(range(4)) * 135, 2.0),
    ],
)
def test_entropy_of_known_values(int8, values, bits):
    conv = read_weights(int8)[0]

    def store(model):
        tensor = weight_tensor(model, conv.index)
        tensor.shape = [15, 3, 3, 4]
        tensor.quantization.scale = tensor.quantization.scale[:15]
        model.buffers[tensor.buffer].data = np.array(values, np.uint8)

    assert read_weights(edited(int8, store))[0].entropy_bits == pytest.approx(bits, abs=1e-12)
