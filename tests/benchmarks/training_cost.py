"""What every training stage costs, ours and stock TFMOT's, as ratios to plain training: first step, step, peak memory.

`python tests/benchmarks/training_cost.py [--alpha 0.25] [--schemes ours stock] [--json FILE]` trains a MobileNetV1
(64x64x3, batch 16, 10 classes, random data) a few steps at a time, every case in a process of its own. Stock PCQAT at
alpha 1.0 takes ten minutes and 9 GB.
"""

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

STAGES = ("plain", "prune", "cluster", "spc", "qat", "pqat", "cqat", "pcqat")
SAME_FOR_BOTH = ("plain", "prune", "cluster", "spc", "qat")
STEPS, BATCH, CLUSTERS, SPARSITY = 8, 16, 16, 0.5


def compressed_mobilenet(alpha: float, *, sparse: bool, clustered: bool):
    """A MobileNetV1 whose kernels look as its parent stage would have left them."""
    import numpy as np
    import tf_keras

    from collabopt.components.engine.compression.kernels import compressible_kernels

    model = tf_keras.applications.MobileNet(
        input_shape=(64, 64, 3), alpha=alpha, weights=None, classes=10, include_top=True
    )
    for name in compressible_kernels(model) if sparse or clustered else ():
        layer = model.get_layer(name)
        kernel, *rest = layer.get_weights()
        values = kernel
        if clustered:
            edges = np.quantile(kernel, np.linspace(0, 1, CLUSTERS)[1:-1])
            values = np.linspace(kernel.min(), kernel.max(), CLUSTERS - 1, dtype=np.float32)[np.digitize(kernel, edges)]
        if sparse:
            values = np.where(np.abs(kernel) < np.quantile(np.abs(kernel), SPARSITY), 0, values)
        layer.set_weights([values.astype(np.float32), *rest])
    return model


def wrapped(stage: str, scheme: str, alpha: float):
    """The model as the stage trains it, and the callbacks that it needs."""
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_scheme

    from collabopt.components.engine.compression.preserving import PreservingScheme

    model = compressed_mobilenet(alpha, sparse=stage in ("spc", "pqat", "pcqat"), clustered=stage in ("cqat", "pcqat"))
    if stage == "plain":
        return model, []
    if stage == "prune":
        schedule = tfmot.sparsity.keras.ConstantSparsity(SPARSITY, begin_step=1, frequency=100)
        return tfmot.sparsity.keras.prune_low_magnitude(model, schedule), [tfmot.sparsity.keras.UpdatePruningStep()]
    if stage in ("cluster", "spc"):
        start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
        options = {"number_of_clusters": CLUSTERS, "cluster_centroids_init": start, "preserve_sparsity": stage == "spc"}
        names = {layer.name for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")}

        def wrap(layer):
            return tfmot.clustering.keras.cluster_weights(layer, **options) if layer.name in names else layer

        return tf_keras.models.clone_model(model, clone_function=wrap), []
    combine = tfmot.experimental.combine
    schemes = {
        ("qat", scheme): lambda: default_8bit_quantize_scheme.Default8BitQuantizeScheme(),
        ("pqat", "ours"): lambda: PreservingScheme(sparse=True, clustered=False),
        ("cqat", "ours"): lambda: PreservingScheme(sparse=False, clustered=True),
        ("pcqat", "ours"): lambda: PreservingScheme(sparse=True, clustered=True),
        ("pqat", "stock"): lambda: combine.Default8BitPrunePreserveQuantizeScheme(),
        ("cqat", "stock"): lambda: combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=False),
        ("pcqat", "stock"): lambda: combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True),
    }
    keras = tfmot.quantization.keras
    return keras.quantize_apply(keras.quantize_annotate_model(model), schemes[stage, scheme]()), []


def measure(stage: str, scheme: str, alpha: float) -> dict[str, float]:
    """Trains `STEPS` steps in this process; seconds of wrapping, first and later steps, and peak memory."""
    import numpy as np
    import tf_keras

    started = time.perf_counter()
    model, callbacks = wrapped(stage, scheme, alpha)
    model.compile("adam", "sparse_categorical_crossentropy")
    prepared = time.perf_counter()
    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * BATCH, 64, 64, 3)).astype(np.float32)
    y = random.integers(0, 10, STEPS * BATCH)
    marks = []
    marker = tf_keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: marks.append(time.perf_counter()))
    begun = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0, callbacks=[*callbacks, marker])
    steps = [later - earlier for earlier, later in itertools.pairwise(marks)]
    return {
        "wrap_s": prepared - started,
        "first_step_s": marks[0] - begun,
        "step_s": statistics.median(steps),
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }


def describe(row: dict, plain: dict) -> str:
    """One line of the table: figures, and in brackets their ratios to plain training."""
    figures = [("first step", "first_step_s", "s"), ("step", "step_s", "s"), ("peak", "peak_gb", "GB")]
    cells = [f"{title} {row[key]:8.3f} {unit} ({row[key] / plain[key]:5.2f}x)" for title, key, unit in figures]
    return f"{row['scheme']:6}{row['stage']:8}" + "  ".join(cells)


def against_qat(row: dict, qat: dict) -> str:
    """One line: the ratios of a preserving stage to plain quantization-aware training."""
    ratios = [f"{key.rpartition('_')[0]} {row[key] / qat[key]:.2f}x" for key in ("first_step_s", "step_s", "peak_gb")]
    return f"{row['scheme']} {row['stage']} / qat: {', '.join(ratios)}"


def main() -> None:
    """Measures every case in its own process and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--schemes", nargs="+", default=["ours", "stock"], choices=["ours", "stock"])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        import collabopt.components.engine  # noqa: F401 - selects Keras 2 before TensorFlow is imported

        print(json.dumps(measure(*arguments.one, arguments.alpha)))
        return
    rows = []
    for scheme in arguments.schemes:
        for stage in STAGES:
            if scheme == "stock" and stage in SAME_FOR_BOTH and "ours" in arguments.schemes:
                continue
            command = [sys.executable, __file__, "--alpha", str(arguments.alpha), "--one", stage, scheme]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"stage": stage, "scheme": scheme, **json.loads(done.stdout.splitlines()[-1])})
            print(describe(rows[-1], plain=rows[0]), flush=True)
    qat = next(row for row in rows if row["stage"] == "qat")
    for row in rows:
        if row["stage"] in ("pqat", "cqat", "pcqat"):
            print(against_qat(row, qat))
    if arguments.json:
        from collabopt.components.engine.versions import versions

        result = {"measured": f"{datetime.now():%Y-%m-%d}", "cores": os.cpu_count(), "versions": versions()}
        arguments.json.write_text(json.dumps({**result, "alpha": arguments.alpha, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
