"""What a model file would run if it were loaded, found out before it is loaded.

A Keras file can carry code: a Lambda layer holds Python bytecode, and a config may name any importable module. Keras's
own `safe_mode` covers the first for `.keras` files only, so the config is read and judged here, for every format. A
SavedModel is besides a TensorFlow program; its operations are not judged, and only layers known by class are taken.
"""

import re
from collections.abc import Iterator
from typing import Any

from collabopt.components.engine.errors import CollaboptError

# Modules in which Keras keeps what a model is made of; nothing there acts on files, processes or the network.
MODEL_MODULES = re.compile(
    r"builtins|(tf_)?keras(\.src)?"
    r"(\.(layers|activations|initializers|regularizers|constraints|models|engine|ops|dtype_policies|mixed_precision)"
    r"(\.\w+)*)?"
)
# Compile settings are never loaded: losses, metrics and optimizers do not matter here.
UNREAD_KEYS = ("compile_config", "training_config")
# TensorFlow functions that a `TFOpLambda` may call: those of namespaces that hold nothing but mathematics, and of the
# top level those that models are made of. Others there load libraries, read files or run Python.
TENSOR_FUNCTIONS = re.compile(
    r"(compat\.v1\.)?(math|nn|linalg|image|__operators__)\.\w+|"
    r"(abs|add|argmax|argmin|broadcast_to|cast|clip_by_value|concat|constant|convert_to_tensor|divide|expand_dims|exp|"
    r"gather|identity|matmul|maximum|minimum|multiply|ones_like|pad|pow|range|reduce_max|reduce_mean|reduce_min|"
    r"reduce_sum|repeat|reshape|reverse|shape|sigmoid|slice|split|sqrt|square|squeeze|stack|strided_slice|subtract|"
    r"tanh|tile|transpose|unstack|where|zeros_like)"
)


def check_config(config: Any, source: str, *, allow_lambda: bool) -> None:
    """Refuses a model config that would run foreign code.

    Args:
        config: The config, decoded from JSON.
        source: Origin, for the error message.
        allow_lambda: Accept Lambda layers and serialized lambdas, which run code that came with the file.

    Raises:
        CollaboptError: There is a Lambda, a class or function from outside Keras, or a TensorFlow function that does
            not compute on tensors; the message names the layer.
    """
    for layer, part in _objects(config, ""):
        name = part.get("class_name")
        module = part.get("module")
        where = f"layer '{layer}' of {source}" if layer else source
        if _is_lambda(part):
            if not allow_lambda:
                raise CollaboptError(
                    f"layer '{layer}' is a Lambda: it runs code that came with the model file",
                    where=where,
                    todo="replace it by Keras layers; or, if you trust the file, --set baseline.allow_lambda=true",
                )
            continue
        if isinstance(module, str) and not MODEL_MODULES.fullmatch(module) and not _is_registered(part):
            raise CollaboptError(
                f"layer '{layer}' needs {module}.{name}, which is no part of Keras",
                where=where,
                todo="use Keras's own layers and functions only, or register the class with "
                "keras.saving.register_keras_serializable in a module that the image imports",
            )
        if name == "TFOpLambda" and not TENSOR_FUNCTIONS.fullmatch(str(part["config"].get("function", ""))):
            raise CollaboptError(
                f"layer '{layer}' calls tf.{part['config'].get('function')}, which does not just compute on tensors",
                where=where,
                todo="replace it by a Keras layer",
            )


def _objects(config: Any, layer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every serialized object, with the name of the layer it is part of."""
    if isinstance(config, dict):
        if "class_name" in config:
            inner = config.get("config")
            name = inner.get("name") if isinstance(inner, dict) else None
            layer = name if isinstance(name, str) else layer
            yield layer, config
        for key, value in config.items():
            if key not in UNREAD_KEYS:
                yield from _objects(value, layer)
    elif isinstance(config, list):
        for item in config:
            yield from _objects(item, layer)


def _is_lambda(part: dict[str, Any]) -> bool:
    inner = part.get("config")
    return (
        str(part["class_name"]).rpartition(">")[2] in ("Lambda", "__lambda__")
        or str(part.get("registered_name")).rpartition(">")[2] == "Lambda"
        or (isinstance(inner, dict) and "function_type" in inner)
    )


def _is_registered(part: dict[str, Any]) -> bool:
    """Whether this process itself has registered the class, so that the file does not choose what is imported."""
    import tf_keras

    return tf_keras.saving.get_registered_object(part.get("registered_name")) is not None
