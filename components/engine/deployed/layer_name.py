"""Which Keras layer a weight tensor's name tells of."""

import re

_QUANTIZE_WRAPPER = "quant_"
# Operator -> scope that tf_keras (Keras 3: `convolution`) opens inside the layer for the computation the operator does.
_SCOPES = {
    "CONV_2D": r"separable_conv[12]d|Conv[12]D|convolution",
    "DEPTHWISE_CONV_2D": r"separable_conv[12]d/depthwise|depthwise",
    "TRANSPOSE_CONV": r"conv[12]d_transpose",
    "CONV_3D": r"Conv3D",
    "FULLY_CONNECTED": r"Tensordot/MatMul|Tensordot|MatMul|einsum/Einsum",
    "BATCH_MATMUL": r"Tensordot/MatMul|Tensordot|MatMul|einsum/Einsum",
}
# Operator -> the scope that a weight tensor is named by.
_SCOPE = {
    "CONV_2D": "Conv2D",
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "conv2d_transpose",
    "CONV_3D": "Conv3D",
    "FULLY_CONNECTED": "MatMul",
    "BATCH_MATMUL": "MatMul",
}
_ANY_SCOPE = "|".join(_SCOPES.values())
_BIAS_SCOPE = "BiasAdd"


def layer_of(tensor_name: str, operator: str) -> str:
    """The layer's name, without the prefix of TensorFlow Model Optimization's wrapper.

    The converter joins the names of all that it has fused into a tensor by semicolons, and ends them with digits where
    they would otherwise be equal: `model/bn/FusedBatchNormV3;model/quant_conv/Conv2D1` is `conv`.

    Args:
        tensor_name: Name in the file.
        operator: Builtin operator that reads the tensor; its own layer goes before others named.

    Returns:
        The name, or "" where the tensor's name tells of none.
    """
    for scopes in (_SCOPES.get(operator, _ANY_SCOPE), _ANY_SCOPE, _BIAS_SCOPE):
        for part in tensor_name.split(";"):
            if match := re.search(rf"([^/]+)/(?:{scopes})(?:/ReadVariableOp)?[_\d]*$", part):
                return match[1].removeprefix(_QUANTIZE_WRAPPER)
    return ""


def name_of_weights(layer: str, operator: str) -> str:
    """A name for a weight tensor that tells of its layer, as `layer_of` reads it."""
    return f"{layer}/{_SCOPE[operator]}"


def name_of_bias(layer: str) -> str:
    """A name for a bias that tells of its layer."""
    return f"{layer}/{_BIAS_SCOPE}"


def short_name(tensor_name: str) -> str:
    """The first computation that a tensor is named by, in its layer: `pool/Mean` of `model/quant_pool/Mean`."""
    *_, layer, computation = ("", *tensor_name.split(";")[0].split("/"))
    layer = layer.removeprefix(_QUANTIZE_WRAPPER)
    return f"{layer}/{computation}" if layer else computation
