"""What every training stage costs, ours and stock TFMOT's, as ratios to plain training and to plain QAT.

`python tests/benchmarks/training_cost.py [--alpha 0.25] [--schemes ours stock] [--limit SECONDS] [--json FILE]` trains
a MobileNetV1 (64x64x3, batch 16, 10 classes, random data) for a few steps, every case in a process of its own: first
step, later steps, peak memory. Stock PCQAT at alpha 1.0 takes ten minutes and 9 GB.
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
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

Fit = Callable[[Any, list[Any]], None]

STAGES = ("plain", "prune", "cluster", "spc", "qat", "pqat", "cqat", "pcqat")
STEPS, BATCH, CLUSTERS, SPARSITY = 8, 16, 16, 0.5
FIGURES = {
    "first step": ("first_step_s", "s"),
    "step": ("step_s", "s"),
    "step's CPU": ("step_cpu_s", "s"),
    "peak": ("peak_gb", "GB"),
}


def compressed_mobilenet(alpha: float, *, sparse: bool, clustered: bool) -> Any:
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


def train_ours(stage: str, model: Any, fit: Fit) -> None:
    """Runs a stage as the pipeline does; `fit` gets what is to be trained."""
    from collabopt.components.engine.compression.clustering import cluster
    from collabopt.components.engine.compression.kernels import claims_of, compressible_kernels
    from collabopt.components.engine.compression.pruning import prune
    from collabopt.components.engine.compression.quantization import quantize_aware
    from collabopt.components.engine.settings import ClusteringSettings, PruningSettings

    names = compressible_kernels(model)
    pruned = names if stage in ("spc", "pqat", "pcqat") else ()
    claims = claims_of(model, pruned=pruned, clustered=names if stage in ("cqat", "pcqat") else ())
    if stage == "prune":
        settings = PruningSettings(target_sparsity=SPARSITY, epochs=1, batch_size=BATCH)
        prune(model, settings, STEPS * BATCH, fit)
    elif stage in ("cluster", "spc"):
        cluster(model, ClusteringSettings(number_of_clusters=CLUSTERS), claims, fit)
    else:
        quantize_aware(model, stage, claims, fit)


def train_stock(stage: str, model: Any, fit: Fit) -> None:
    """Runs a stage as TFMOT's notebooks do."""
    import tensorflow_model_optimization as tfmot
    import tf_keras
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_scheme

    if stage == "prune":
        schedule = tfmot.sparsity.keras.ConstantSparsity(SPARSITY, begin_step=1, frequency=100)
        wrapped = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
        return fit(wrapped, [tfmot.sparsity.keras.UpdatePruningStep()])
    if stage in ("cluster", "spc"):
        start = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
        options = {"number_of_clusters": CLUSTERS, "cluster_centroids_init": start, "preserve_sparsity": stage == "spc"}
        names = {layer.name for layer in model.layers if type(layer).__name__ in ("Conv2D", "Dense")}

        def wrap(layer: Any) -> Any:
            return tfmot.clustering.keras.cluster_weights(layer, **options) if layer.name in names else layer

        return fit(tf_keras.models.clone_model(model, clone_function=wrap), [])
    combine = tfmot.experimental.combine
    schemes = {
        "qat": lambda: default_8bit_quantize_scheme.Default8BitQuantizeScheme(),
        "pqat": lambda: combine.Default8BitPrunePreserveQuantizeScheme(),
        "cqat": lambda: combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=False),
        "pcqat": lambda: combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True),
    }
    keras = tfmot.quantization.keras
    return fit(keras.quantize_apply(keras.quantize_annotate_model(model), schemes[stage]()), [])


def measure(stage: str, scheme: str, alpha: float) -> dict[str, float]:
    """Trains `STEPS` steps in this process; seconds of wrapping, first and later steps, and peak memory.

    CPU seconds of all threads together are what a busy machine does not distort.
    """
    import numpy as np
    import tf_keras

    random = np.random.default_rng(0)
    x = random.normal(size=(STEPS * BATCH, 64, 64, 3)).astype(np.float32)
    y = random.integers(0, 10, STEPS * BATCH)
    marks: list[tuple[float, float]] = []

    def mark(*_: Any) -> None:
        marks.append((time.perf_counter(), time.process_time()))

    marker = tf_keras.callbacks.LambdaCallback(on_train_batch_end=mark)

    def fit(model: Any, callbacks: list[Any]) -> None:
        mark()
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0, callbacks=[*callbacks, marker])

    model = compressed_mobilenet(alpha, sparse=stage in ("spc", "pqat", "pcqat"), clustered=stage in ("cqat", "pcqat"))
    mark()
    if stage == "plain":
        fit(model, [])
    else:
        {"ours": train_ours, "stock": train_stock}[scheme](stage, model, fit)
    (wrapping, _), (first, _), *later = np.diff(marks, axis=0).tolist()
    step, step_cpu = (statistics.median(figures) for figures in zip(*later, strict=True))
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"wrap_s": wrapping, "first_step_s": first, "step_s": step, "step_cpu_s": step_cpu, "peak_gb": peak_gb}


def measure_apart(stage: str, scheme: str, alpha: float, limit_s: float) -> dict[str, Any]:
    """As `measure`, in a process of its own; `did_not_finish` where it takes longer than the limit."""
    command = [sys.executable, __file__, "--alpha", str(alpha), "--one", stage, scheme]
    case = {"stage": stage, "scheme": scheme}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {**case, "did_not_finish": f"stopped after {limit_s:.0f} s"}
    if done.returncode != 0:
        return {**case, "did_not_finish": (done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]}
    return {**case, **json.loads(done.stdout.splitlines()[-1])}


def describe(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """One line of the table: figures, and in brackets their ratios to plain training and to the scheme's own QAT."""
    name = f"{row['scheme']:6}{row['stage']:8}"
    if "did_not_finish" in row:
        return f"{name}did not finish: {row['did_not_finish']}"
    plain = next(other for other in rows if other["stage"] == "plain")
    qat = next((other for other in rows if (other["stage"], other["scheme"]) == ("qat", row["scheme"])), {})
    cells = []
    for title, (key, unit) in FIGURES.items():
        ratios = [f"{row[key] / other[key]:.2f}" if key in other else "-" for other in (plain, qat)]
        cells.append(f"{title} {row[key]:8.3f} {unit} ({' / '.join(ratios)})")
    return name + "  ".join(cells)


def main() -> None:
    """Measures every case and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--schemes", nargs="+", default=["ours", "stock"], choices=["ours", "stock"])
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a case is given up")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        import collabopt.components.engine  # noqa: F401 - selects Keras 2 before TensorFlow is imported

        print(json.dumps(measure(*arguments.one, arguments.alpha)))
        return
    rows: list[dict[str, Any]] = []
    for scheme, stage in itertools.product(arguments.schemes, STAGES):
        if stage != "plain" or not rows:
            rows.append(measure_apart(stage, scheme, arguments.alpha, arguments.limit))
            print(".", end="", flush=True, file=sys.stderr)
    print("figure (ratio to plain training / ratio to the scheme's quantization-aware training)")
    for row in rows:
        print(describe(row, rows))
    if arguments.json:
        from collabopt.components.engine.versions import versions

        result = {"measured": f"{datetime.now():%Y-%m-%d}", "cores": os.cpu_count(), "versions": versions()}
        arguments.json.write_text(json.dumps({**result, "alpha": arguments.alpha, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
