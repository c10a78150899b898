"""Keras 3 layers as tf_keras layers: same class, same options; weights are copied afterwards."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from collabopt.components.engine.errors import CollaboptError

REWRITE = "rebuild the model with layers that both Keras versions have, or train it with tf_keras (Keras 2)"

# Options that Keras 3 renamed: class -> Keras 3 name -> tf_keras name.
RENAMED_OPTIONS = {"LeakyReLU": {"negative_slope": "alpha"}}
# Activations that Keras 3 renamed.
RENAMED_ACTIVATIONS = {"silu": "swish"}
# tf_keras has a function of that name, but another one: 0.2 x + 0.5 instead of relu6(x + 3) / 6.
OTHER_ACTIVATIONS = ("hard_sigmoid",)
# Options that tf_keras takes without naming them in a constructor.
UNNAMED_OPTIONS = ("name", "trainable", "dtype", "zero_output_for_mask")


def translate(layer: Any, name: str) -> Callable[..., Any]:
    """Finds the tf_keras counterpart of a Keras 3 layer, or of an arithmetic operation between tensors.

    Initializers are dropped, because weights are copied.

    Args:
        layer: The Keras 3 layer or operation.
        name: Name that the counterpart gets.

    Returns:
        A tf_keras layer; for a few activations and operations, a function that applies several.

    Raises:
        CollaboptError: There is none; the message names layer, class and option.
    """
    import keras
    import tf_keras

    kind = type(layer).__name__
    if not isinstance(layer, keras.Layer):
        return _translate_operation(kind, name)
    if kind == "Lambda":
        return tf_keras.layers.Lambda(layer.function, name=name, arguments=layer.arguments)
    config = layer.get_config()
    if kind == "Activation" and config["activation"] in COMPOSED_ACTIVATIONS:
        return COMPOSED_ACTIVATIONS[config["activation"]](name)
    if kind == "Normalization" and config["mean"] is None:
        config = {**config, "mean": _listed(layer.mean), "variance": _listed(layer.variance)}
    return _from_config(type(layer), {**config, "name": name}, name)


def lacks_counterpart(layer: Any) -> bool:
    """Whether tf_keras has nothing for this Keras 3 layer or operation, whatever its options."""
    import keras
    import tf_keras

    kind = type(layer).__name__
    if not isinstance(layer, keras.Layer):
        return kind not in MERGES
    return not hasattr(tf_keras.layers, kind) or not type(layer).__module__.startswith("keras.src.layers")


def policy_name(dtype: Any) -> str:
    """Name of a serialized Keras 3 dtype policy, for example `float32` or `mixed_float16`."""
    return dtype["config"]["name"] if isinstance(dtype, dict) else str(dtype)


def _from_config(kind: type, config: dict[str, Any], layer: str) -> Any:
    import tf_keras

    target = getattr(tf_keras.layers, kind.__name__)
    accepted, defaults = _options(target), _options(kind)
    options: dict[str, Any] = {}
    for key, value in config.items():
        option = RENAMED_OPTIONS.get(kind.__name__, {}).get(key, key)
        if option.endswith("_initializer"):
            continue
        if option in accepted or option in UNNAMED_OPTIONS:
            options[option] = _translate_option(option, value, layer)
        elif key in defaults and value != defaults[key]:
            raise CollaboptError(
                f"layer '{layer}' ({kind.__name__}) sets {key}={value!r}, which tf_keras does not have",
                where=f"layer '{layer}'",
                todo=REWRITE,
            )
    try:
        return target.from_config(options)
    except (ValueError, TypeError) as error:
        raise CollaboptError(
            f"tf_keras cannot make layer '{layer}' ({kind.__name__}): {error}", where=f"layer '{layer}'", todo=REWRITE
        ) from error


def _options(kind: type) -> dict[str, Any]:
    """Constructor parameters of a class and of its bases, with their defaults."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if "__init__" in vars(base) and base is not object:
            parameters = inspect.signature(vars(base)["__init__"]).parameters
            found.update({name: parameter.default for name, parameter in parameters.items()})
    return found


def _translate_option(option: str, value: Any, layer: str) -> Any:
    if option == "dtype":
        return policy_name(value)
    if option.endswith("activation"):
        return _translate_activation(value, layer)
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    module = str(value.get("module"))
    if module.startswith("keras.layers"):
        return _translate_wrapped(value, layer)
    return {"class_name": value["class_name"], "config": value["config"]}


def _translate_wrapped(value: dict[str, Any], layer: str) -> dict[str, Any]:
    """The layer inside a wrapper such as TimeDistributed or Bidirectional."""
    import keras
    import tf_keras

    kind = value["class_name"]
    if not hasattr(tf_keras.layers, kind):
        raise CollaboptError(f"layer '{layer}' wraps a {kind}, which tf_keras does not have", todo=REWRITE)
    inner = _from_config(getattr(keras.layers, kind), value["config"], layer)
    return {"class_name": kind, "config": inner.get_config()}


def _translate_activation(value: Any, layer: str) -> Any:
    import tf_keras

    name = value.get("config") if isinstance(value, dict) else value
    if name is None:
        return None
    name = RENAMED_ACTIVATIONS.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or not hasattr(tf_keras.activations, name) or name in OTHER_ACTIVATIONS:
        shown = name if isinstance(name, str) else value["class_name"]
        raise CollaboptError(
            f"layer '{layer}' has the activation {shown}, which tf_keras does not have",
            where=f"layer '{layer}'",
            todo="put the activation into a layer of its own (ReLU, Activation), or choose another",
        )
    return name


def _translate_operation(kind: str, name: str) -> Callable[..., Any]:
    """Adds, subtracts, multiplies or divides tensors, or a tensor and a number, by a layer."""
    import tf_keras

    merge = MERGES[kind]

    def apply(first: Any, second: Any) -> Any:
        numbers = [value for value in (first, second) if isinstance(value, (int, float))]
        if not numbers and merge is not None:
            return layers("merge", lambda: getattr(tf_keras.layers, merge)(name=name))([first, second])
        if len(numbers) == 1 and not (kind in ("Divide", "TrueDivide") and numbers[0] is first):
            scale, offset = _affine(kind, numbers[0], number_is_first=numbers[0] is first)
            tensor = second if numbers[0] is first else first
            return layers("rescale", lambda: tf_keras.layers.Rescaling(scale, offset, name=name))(tensor)
        raise CollaboptError(
            f"operation '{name}' ({kind}) is applied to tensors outside of any layer, in a way that no layer has",
            where=f"operation '{name}'",
            todo=REWRITE,
        )

    made: dict[str, Any] = {}

    def layers(key: str, make: Callable[[], Any]) -> Any:
        if key not in made:
            made[key] = make()
        return made[key]

    return apply


def _affine(kind: str, number: float, *, number_is_first: bool) -> tuple[float, float]:
    if kind == "Add":
        return 1.0, number
    if kind == "Subtract":
        return (-1.0, number) if number_is_first else (1.0, -number)
    return (number if kind == "Multiply" else 1.0 / number), 0.0


# Operations between tensors -> the merging layer of two tensors; with a number, Rescaling serves.
MERGES: dict[str, str | None] = {
    "Add": "Add",
    "Subtract": "Subtract",
    "Multiply": "Multiply",
    "Divide": None,
    "TrueDivide": None,
}


def _relu6(name: str) -> Callable[..., Any]:
    import tf_keras

    return tf_keras.layers.ReLU(6.0, name=name)


def _hard_sigmoid(name: str) -> Callable[..., Any]:
    """relu6(x + 3) / 6, Keras 3's definition."""
    import tf_keras

    shift = tf_keras.layers.Rescaling(1.0, 3.0, name=f"{name}_shift")
    relu6 = tf_keras.layers.ReLU(6.0, name=f"{name}_relu6")
    scale = tf_keras.layers.Rescaling(1.0 / 6.0, name=name)
    return lambda tensor: scale(relu6(shift(tensor)))


def _hard_swish(name: str) -> Callable[..., Any]:
    """The input times its hard_sigmoid."""
    import tf_keras

    gate = _hard_sigmoid(f"{name}_gate")
    multiply = tf_keras.layers.Multiply(name=name)
    return lambda tensor: multiply([tensor, gate(tensor)])


COMPOSED_ACTIVATIONS = {
    "relu6": _relu6,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_swish,
    "hard_swish": _hard_swish,
}


def _listed(value: Any) -> list[float]:
    return np.asarray(value).reshape(-1).tolist()
