"""The whole tree as one would write it by hand: one process, stock TFMOT, no pipeline, no tracking, no checks.

`python bare_tree.py MODEL.keras DATA DIRECTORY` makes the eight leaves from a baseline and a `Dataset` directory, with
as many steps of the same size as `collabopt run` by default; no distillation, constant learning rates. The other side
of `overhead.py`.
"""

import os
import sys
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from ai_edge_litert.interpreter import Interpreter

EPOCHS, BATCH, CLUSTERS, SPARSITY = 3, 32, 16, 0.5
LEARNING_RATE, QAT_LEARNING_RATE = 1e-3, 1e-4
KINDS = ("Conv2D", "Dense")

model_path, data_path, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
scale = 1 / 16


def split(name):
    features = np.load(data_path / f"{name}-features.npy").astype(np.float32) * scale
    return features, np.load(data_path / f"{name}-labels.npy")


x_train, y_train = split("train")
x_calibration, _ = split("calibration")
x_test, y_test = split("test")
validation = split("validation")


def baseline():
    return tf_keras.models.load_model(model_path, compile=False)


def fit(model, rate, callbacks=()):
    tf_keras.utils.set_random_seed(0)
    model.compile(tf_keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    batches = tf.data.Dataset.from_tensor_slices((x_train, y_train)).shuffle(len(x_train)).batch(BATCH).prefetch(2)
    model.fit(batches, epochs=EPOCHS, validation_data=validation, callbacks=list(callbacks), verbose=0)


def evaluate_keras(model):
    return float(np.mean(model.predict(x_test, batch_size=256, verbose=0).argmax(-1) == y_test))


def convert(model, quantized_by_data=False):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    if quantized_by_data:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([sample[None]] for sample in x_calibration[:200])
    return converter.convert()


def leaf(name, tflite):
    interpreter = Interpreter(model_content=tflite, num_threads=1)
    source, sink = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(source["index"], x_test.shape)
    interpreter.allocate_tensors()
    factor, zero = source["quantization"]
    interpreter.set_tensor(source["index"], np.clip(np.round(x_test / factor) + zero, -128, 127).astype(np.int8))
    interpreter.invoke()
    accuracy = float(np.mean(interpreter.get_tensor(sink["index"]).argmax(-1) == y_test))
    (output / f"{name}.tflite").write_bytes(tflite)
    print(f"{name:22} {accuracy:.4f}", flush=True)


def wrap_kernels(model, wrap):
    return tf_keras.models.clone_model(
        model, clone_function=lambda layer: wrap(layer) if type(layer).__name__ in KINDS else layer
    )


def prune(model):
    schedule = tfmot.sparsity.keras.ConstantSparsity(SPARSITY, begin_step=1, frequency=100)
    wrapped = wrap_kernels(model, lambda layer: tfmot.sparsity.keras.prune_low_magnitude(layer, schedule))
    fit(wrapped, LEARNING_RATE, [tfmot.sparsity.keras.UpdatePruningStep()])
    return tfmot.sparsity.keras.strip_pruning(wrapped)


def cluster(model, preserve_sparsity):
    start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    options = {"number_of_clusters": CLUSTERS, "cluster_centroids_init": start, "preserve_sparsity": preserve_sparsity}
    wrapped = wrap_kernels(model, lambda layer: tfmot.clustering.keras.cluster_weights(layer, **options))
    fit(wrapped, LEARNING_RATE)
    return tfmot.clustering.keras.strip_clustering(wrapped)


def quantize_aware(model, scheme=None):
    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    quantized = tfmot.quantization.keras.quantize_apply(annotated, *([scheme] if scheme else []))
    fit(quantized, QAT_LEARNING_RATE)
    return quantized


combine = tfmot.experimental.combine
output.mkdir(parents=True, exist_ok=True)
print("baseline", evaluate_keras(baseline()), len(tf.lite.TFLiteConverter.from_keras_model(baseline()).convert()))
leaf("ptq", convert(baseline(), True))
leaf("qat", convert(quantize_aware(baseline())))

pruned = prune(baseline())
print("pruned", evaluate_keras(pruned))
pruned.save(output / "pruned.keras")
leaf("pruned_ptq", convert(pruned, True))
leaf("pqat", convert(quantize_aware(pruned, combine.Default8BitPrunePreserveQuantizeScheme())))

both = cluster(tf_keras.models.load_model(output / "pruned.keras", compile=False), True)
print("pruned_clustered", evaluate_keras(both))
leaf("pruned_clustered_ptq", convert(both, True))
preserve = combine.Default8BitClusterPreserveQuantizeScheme
leaf("pcqat", convert(combine.strip_clustering_cqat(quantize_aware(both, preserve(preserve_sparsity=True)))))

clustered = cluster(baseline(), False)
print("clustered", evaluate_keras(clustered))
leaf("clustered_ptq", convert(clustered, True))
leaf("cqat", convert(combine.strip_clustering_cqat(quantize_aware(clustered, preserve(preserve_sparsity=False)))))
