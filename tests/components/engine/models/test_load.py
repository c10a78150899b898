import json
import shutil
import uuid
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.cloud import storage

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.load import load_model

IMAGES = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)


def small_net() -> Any:
    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, activation="softmax", name="classes"),
        ]
    )


def predictions(model: Any) -> np.ndarray:
    return np.asarray(model(IMAGES, training=False))


def rewrite_config(source: Path, target: Path, change: Any) -> Path:
    """Copies a .keras file with another config."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            new.writestr(name, content)
    return target


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved_model"])
def test_every_format_predicts_the_same(name: str, tmp_path: Path) -> None:
    model = small_net()
    path = tmp_path / name
    model.save(path, save_format="tf" if name == "saved_model" else None)

    loaded = load_model(str(path))

    assert isinstance(loaded, tf_keras.Model)
    np.testing.assert_array_equal(predictions(loaded), predictions(model))
    assert [layer.name for layer in loaded.layers if layer.weights] == ["conv", "bn", "classes"]
    assert loaded.optimizer is None


def test_content_decides_on_the_format_not_the_suffix(tmp_path: Path) -> None:
    model = small_net()
    model.save(tmp_path / "model.h5")
    (tmp_path / "model.h5").rename(tmp_path / "model.keras")

    np.testing.assert_array_equal(predictions(load_model(str(tmp_path / "model.keras"))), predictions(model))


@pytest.mark.parametrize("name", ["model.keras", "saved_model"])
def test_models_come_from_a_bucket(name: str, tmp_path: Path, gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    model = small_net()
    model.save(tmp_path / name, save_format="tf" if name == "saved_model" else None)
    bucket = storage.Client(project="test").create_bucket(f"bucket-{uuid.uuid4().hex[:8]}")
    files = (
        [tmp_path / name] if (tmp_path / name).is_file() else [p for p in (tmp_path / name).rglob("*") if p.is_file()]
    )
    for file in files:
        bucket.blob(f"models/{file.relative_to(tmp_path)}").upload_from_filename(str(file))

    loaded = load_model(f"gs://{bucket.name}/models/{name}")

    np.testing.assert_array_equal(predictions(loaded), predictions(model))


def test_nested_models_come_out_flat(tmp_path: Path) -> None:
    inner = small_net()
    outer = tf_keras.Sequential([tf_keras.layers.Input((8, 8, 1)), inner, tf_keras.layers.Dense(2)])
    outer.save(tmp_path / "model.keras")

    loaded = load_model(str(tmp_path / "model.keras"))

    assert not any(isinstance(layer, tf_keras.Model) for layer in loaded.layers)
    np.testing.assert_allclose(predictions(loaded), predictions(outer), atol=1e-6)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollaboptError, match="does not exist"):
        load_model(str(tmp_path / "model.keras"))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    small_net().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CollaboptError, match="damaged or incomplete") as caught:
        load_model(str(path))
    assert caught.value.where == str(path)


def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    small_net().save(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CollaboptError, match="damaged or incomplete"):
        load_model(str(path))


@pytest.mark.parametrize("content", [b"", b"\x00\x01", bytes(range(256)) * 40])
def test_random_bytes_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(content)
    with pytest.raises(CollaboptError, match="no Keras model") as caught:
        load_model(str(path))
    assert ".keras" in caught.value.todo


def test_other_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "arrays.npz", weights=IMAGES)
    with pytest.raises(CollaboptError, match=r"no \.keras model"):
        load_model(str(tmp_path / "arrays.npz"))


def test_weights_without_a_model_are_refused(tmp_path: Path) -> None:
    small_net().save_weights(tmp_path / "model.weights.h5")
    small_net().save_weights(tmp_path / "weights.h5")
    for name in ("model.weights.h5", "weights.h5"):
        with pytest.raises(CollaboptError, match="weights only"):
            load_model(str(tmp_path / name))


def test_directory_without_saved_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollaboptError, match=r"no saved_model\.pb"):
        load_model(str(tmp_path))


def test_saved_model_without_keras_layers_says_what_to_do(tmp_path: Path) -> None:
    small_net().export(str(tmp_path / "exported"))
    with pytest.raises(CollaboptError, match="no Keras layers") as caught:
        load_model(str(tmp_path / "exported"))
    assert "model.save('model.keras')" in caught.value.todo


def test_custom_layer_of_a_saved_model_is_named(tmp_path: Path) -> None:
    class Doubling(tf_keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return inputs * 2.0

    image = tf_keras.Input((8, 8, 1))
    tf_keras.Model(image, Doubling(name="doubling")(image)).save(tmp_path / "saved", save_format="tf")
    with pytest.raises(CollaboptError, match="doubling"):
        load_model(str(tmp_path / "saved"))


def lambda_model(marker: Path) -> Any:
    """A model whose Lambda leaves a trace when it runs, as any code in a model file could."""
    image = tf_keras.Input((8, 8, 1))
    # A lambda, so that Keras stores its bytecode.
    doubled = tf_keras.layers.Lambda(
        lambda tensor, path=str(marker): (open(path, "w").close(), tensor * 2.0)[1], name="code"
    )
    return tf_keras.Model(image, tf_keras.layers.Flatten()(doubled(image)))


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved_model"])
def test_lambda_is_refused_before_it_runs(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    lambda_model(marker).save(tmp_path / name, save_format="tf" if name == "saved_model" else None)
    marker.unlink(missing_ok=True)

    with pytest.raises(CollaboptError, match="'code' is a Lambda"):
        load_model(str(tmp_path / name))

    assert not marker.exists()


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_lambda_is_taken_when_it_is_allowed(name: str, tmp_path: Path) -> None:
    model = lambda_model(tmp_path / "marker")
    model.save(tmp_path / name)

    loaded = load_model(str(tmp_path / name), allow_lambda=True)

    np.testing.assert_allclose(predictions(loaded), IMAGES.reshape(4, -1) * 2.0)


@pytest.mark.parametrize(
    "activation",
    [
        {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
        {"module": "keras.utils", "class_name": "function", "config": "get_file", "registered_name": "get_file"},
        {"module": "keras.src.utils.io_utils", "class_name": "print_msg", "config": {}, "registered_name": "print_msg"},
    ],
)
def test_functions_from_outside_keras_models_are_refused(activation: dict[str, Any], tmp_path: Path) -> None:
    small_net().save(tmp_path / "good.keras")

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][-1]["config"]["activation"] = activation

    path = rewrite_config(tmp_path / "good.keras", tmp_path / "bad.keras", change)
    with pytest.raises(CollaboptError, match=f"'classes' needs {activation['module']}"):
        load_model(str(path))


def test_custom_class_does_not_import_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_layers.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    small_net().save(tmp_path / "good.keras")

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][2].update(module="foreign_layers", class_name="Mine", registered_name="Mine")

    path = rewrite_config(tmp_path / "good.keras", tmp_path / "bad.keras", change)
    with pytest.raises(CollaboptError, match=r"foreign_layers\.Mine"):
        load_model(str(path))
    assert not (tmp_path / "marker").exists()


def test_file_writing_tensorflow_function_is_refused(tmp_path: Path) -> None:
    image = tf_keras.Input((8, 8, 1))
    tf_keras.Model(image, tf.math.abs(image)).save(tmp_path / "good.keras")
    assert load_model(str(tmp_path / "good.keras"))

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["function"] = "io.write_file"

    path = rewrite_config(tmp_path / "good.keras", tmp_path / "bad.keras", change)
    with pytest.raises(CollaboptError, match=r"tf\.io\.write_file"):
        load_model(str(path))


def test_unknown_class_of_an_h5_file_is_told(tmp_path: Path) -> None:
    small_net().save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"][2].update(class_name="Mine")
        config["config"]["layers"][2].pop("module", None)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(CollaboptError, match="Mine"):
        load_model(str(tmp_path / "model.h5"))


def test_saved_model_with_missing_variables_is_refused(tmp_path: Path) -> None:
    small_net().save(tmp_path / "saved", save_format="tf")
    shutil.rmtree(tmp_path / "saved" / "variables")
    with pytest.raises(CollaboptError, match="cannot load"):
        load_model(str(tmp_path / "saved"))
