"""The stages of the tree by stock TFMOT, as its notebooks do them, and the same questions to its files as to ours.

https://www.tensorflow.org/model_optimization/guide/combine/collaborative_optimization
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.records import Claims, Contract

MODEL_FILE, TFLITE_FILE, TRAINED_FILE = "model.keras", "model.tflite", "trained.npz"
LEARNING_RATE = 1e-4


def run_stock_stage(
    technique: str, *, parent: Path, dataset: Path, output: Path, settings: dict[str, Any], seed: int
) -> None:
    """Applies a technique to the parent's model; writes the fp32 model, or the `.tflite` after running it once."""
    import tf_keras

    from collabopt.components.engine.deployed.evaluate import predict

    tf_keras.utils.set_random_seed(seed)
    output.mkdir()
    data = StoredDataset(dataset)
    made = _TECHNIQUES[technique](_load(parent), data, settings)
    if technique in _INTERIORS:
        made.save(output / MODEL_FILE)
        return
    tflite, quantized = made
    (output / TFLITE_FILE).write_bytes(tflite)
    predict(tflite, data.inputs("test"))
    if quantized is not None:
        _keep_kernels(quantized, _load(parent), output / TRAINED_FILE)


def judge(parent: Path, output: Path, *, sparse: bool, clustered: bool) -> dict[str, Any]:
    """Inspects a stock leaf and holds it to the same contract as ours.

    Args:
        parent: Directory of its fp32 parent.
        output: Its directory.
        sparse: Whether it has to keep zeros.
        clustered: Whether it has to keep palettes.

    Returns:
        `deployed` and `contract` as our reports have them, and `contract_by_channel` with palettes counted on every
        output channel, which is what stock TFMOT aims at.
    """
    from collabopt.components.engine.compression.kernels import claims_of, compressible_kernels
    from collabopt.components.engine.deployed.inspect import inspect_tflite

    tflite = (output / TFLITE_FILE).read_bytes()
    model = _load(parent)
    names = list(compressible_kernels(model))
    claims = claims_of(model, pruned=names if sparse else (), clustered=names if clustered else ())
    trained_file = output / TRAINED_FILE
    trained = dict(np.load(trained_file)) if trained_file.exists() else None
    contracts = {
        name: _check(tflite, claims.model_copy(update={"palette": palette}), model, trained).model_dump()
        for name, palette in (("contract", "tensor"), ("contract_by_channel", "channel"))
    }
    return {"deployed": inspect_tflite(tflite).model_dump(), **contracts}


def _check(tflite: bytes, claims: Claims, model: Any, trained: dict[str, np.ndarray] | None) -> Contract:
    from collabopt.components.engine.deployed.contract import check_contract
    from collabopt.components.engine.deployed.layers import kernels_as_deployed

    return check_contract(tflite, claims, kernels_as_deployed(model), trained)


def _load(directory: Path) -> Any:
    import tf_keras

    return tf_keras.models.load_model(directory / MODEL_FILE, compile=False)


def _fit(model: Any, data: StoredDataset, settings: dict[str, Any], callbacks: tuple[Any, ...] = ()) -> None:
    import tf_keras

    rate = settings.get("learning_rate", LEARNING_RATE)
    model.compile(tf_keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        data.inputs("train"),
        data.labels("train"),
        batch_size=settings["batch_size"],
        epochs=settings["epochs"],
        validation_data=(data.inputs("validation"), data.labels("validation")),
        callbacks=list(callbacks),
        verbose=0,
    )


def _prune(model: Any, data: StoredDataset, settings: dict[str, Any]) -> Any:
    from tensorflow_model_optimization import sparsity

    schedule = sparsity.keras.ConstantSparsity(settings["target_sparsity"], begin_step=1, frequency=100)
    wrapped = sparsity.keras.prune_low_magnitude(model, pruning_schedule=schedule)
    _fit(wrapped, data, settings, (sparsity.keras.UpdatePruningStep(),))
    return sparsity.keras.strip_pruning(wrapped)


def _cluster(model: Any, data: StoredDataset, settings: dict[str, Any], *, preserve_sparsity: bool = False) -> Any:
    from tensorflow_model_optimization import clustering

    wrapped = clustering.keras.cluster_weights(
        model,
        number_of_clusters=settings["number_of_clusters"],
        cluster_centroids_init=clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity=preserve_sparsity,
    )
    _fit(wrapped, data, settings)
    return clustering.keras.strip_clustering(wrapped)


def _cluster_sparse(model: Any, data: StoredDataset, settings: dict[str, Any]) -> Any:
    return _cluster(model, data, settings, preserve_sparsity=True)


def _post_training_quantize(model: Any, data: StoredDataset, settings: dict[str, Any]) -> tuple[bytes, Any]:
    return _convert(model, lambda: data.representative(data.spec.sizes["calibration"])), None


def _quantize_aware(model: Any, data: StoredDataset, settings: dict[str, Any]) -> tuple[bytes, Any]:
    from tensorflow_model_optimization import quantization

    quantized = quantization.keras.quantize_model(model)
    _fit(quantized, data, settings)
    return _convert(quantized), quantized


def _preserving(scheme: str, **options: bool) -> Callable[[Any, StoredDataset, dict[str, Any]], tuple[bytes, Any]]:
    def quantize(model: Any, data: StoredDataset, settings: dict[str, Any]) -> tuple[bytes, Any]:
        from tensorflow_model_optimization import experimental, quantization

        annotated = quantization.keras.quantize_annotate_model(model)
        chosen = getattr(experimental.combine, scheme)(**options)
        quantized = quantization.keras.quantize_apply(annotated, chosen)
        _fit(quantized, data, settings)
        if options:
            quantized = experimental.combine.strip_clustering_cqat(quantized)
        return _convert(quantized), quantized

    return quantize


def _convert(model: Any, representative: Callable[[], Any] | None = None) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    if representative is not None:
        converter.representative_dataset = representative
    return bytes(converter.convert())


def _keep_kernels(quantized: Any, plain: Any, path: Path) -> None:
    """Writes the kernels that training has ended with, those of the parent where TFMOT has renamed them."""
    from collabopt.components.engine.deployed.layers import kernels_as_deployed

    learned = {weight.name: weight for weight in quantized.weights}
    for weight in plain.weights:
        if weight.name in learned:
            weight.assign(learned[weight.name])
    np.savez(path, **kernels_as_deployed(plain))


_INTERIORS: dict[str, Callable[[Any, StoredDataset, dict[str, Any]], Any]] = {
    "prune": _prune,
    "cluster": _cluster,
    "sparsity_preserving_cluster": _cluster_sparse,
}
_TECHNIQUES: dict[str, Callable[[Any, StoredDataset, dict[str, Any]], Any]] = {
    **_INTERIORS,
    "post_training_quantize": _post_training_quantize,
    "quantize_aware_train": _quantize_aware,
    "sparsity_preserving_qat": _preserving("Default8BitPrunePreserveQuantizeScheme"),
    "cluster_preserving_qat": _preserving("Default8BitClusterPreserveQuantizeScheme", preserve_sparsity=False),
    "sparsity_cluster_preserving_qat": _preserving("Default8BitClusterPreserveQuantizeScheme", preserve_sparsity=True),
}
