"""What the leaves come to on Fashion-MNIST, beside stock TFMOT: accuracy, sizes, and figures on an NPU.

`python tests/benchmarks/evidence.py [--networks ...] [--schemes ours searched stock] [--seeds 0 1 2]` trains a baseline
for every network and seed, and takes it through our tree with its default configuration, through a branch of it with
the configuration that a search has found, and through stock TFMOT with the settings of its notebooks, at the default's
sparsity and number of clusters. Every stage runs in a process of its own; every leaf, whosever, is measured in the same
way: on the full test split in LiteRT, from its bytes, and by Vela. Results are written after every run through the
tree, and what is in the file already, made under the same conditions, is not measured again.
"""

import argparse
import functools
import importlib
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from evidence_results import Results, baselines, cost, markdown, plot, summary
from evidence_search import CONDITIONS, PIPELINE, SETTINGS, search
from fashion_networks import NETWORKS
from measured_process import Outcome, run_measured

from collabopt.components.engine.bindings import inputs_of
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.techniques import CLUSTERED, SPARSE, properties_after
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.pipelines import stages_of
from collabopt.pipelines.parameters import Parameters
from collabopt.pipelines.tree import ROOT, TREE, Stage

SOURCE = "example://fashion-mnist"
SCHEMES = ("ours", "searched", "stock")
RESULTS = Path(__file__).resolve().parent / "results" / "evidence.json"
PLOT = Path(__file__).resolve().parents[2] / ".github" / "images" / "evidence.svg"
ACCELERATOR = "ethos-u55-128"
PREPARED = ("tensorflow", "tf_keras.layers", "tensorflow_model_optimization", "ai_edge_litert.interpreter", "mlflow")
BATCH_SIZE = 32
_DATA, _TRAINED = "dataset", "trained.keras"
# As TFMOT's notebooks on collaborative optimization have them (pqat_example, cqat_example, pcqat_example,
# sparse_clustering_example), but for our number of clusters and size of batches.
_FINE = {"epochs": 3, "learning_rate": 1e-5, "batch_size": BATCH_SIZE}
_QAT = {"epochs": 1, "learning_rate": 1e-3, "batch_size": BATCH_SIZE}
STOCK = {
    "prune": {**_FINE, "target_sparsity": 0.5},
    "cluster": {**_FINE, "number_of_clusters": 16},
    "sparsity_preserving_cluster": {**_FINE, "learning_rate": 1e-3, "number_of_clusters": 16},
    "post_training_quantize": {},
    "quantize_aware_train": _QAT,
    "sparsity_preserving_qat": _QAT,
    "cluster_preserving_qat": _QAT,
    "sparsity_cluster_preserving_qat": _QAT,
}

Measure = Callable[[Callable[[], Any], str], Outcome]


def prepare(network: str, seed: int, train_share: float) -> dict[str, Any]:
    """Writes the data, the trained baseline and what the tree makes of it; sizes and accuracy of the baseline."""
    from fashion_networks import train

    from collabopt.components.engine.records import read_stage_record
    from collabopt.components.engine.stages import import_model_stage, load_dataset_stage

    common: dict[str, Any] = {"task": DEFAULT_TASK, "overrides": {}}
    load_dataset_stage(source=SOURCE, output=_DATA, settings={"seed": seed, "train_share": train_share}, **common)
    model = train(network, StoredDataset(_DATA), seed, BATCH_SIZE)
    _directory("stock", ROOT).mkdir()
    model.save(_TRAINED)
    import_model_stage(source=_TRAINED, dataset=_DATA, output=ROOT, settings={"seed": seed}, **common)
    model.save(_directory("stock", ROOT) / "model.keras")
    return {**read_stage_record(ROOT).metrics, "parameters": model.count_params()}


def find_configuration(network: str, seed: int, train_share: float) -> dict[str, Any]:
    """Searches for what a prepared network bears; see `search`."""
    arguments = {"seed": seed, "batch_size": BATCH_SIZE}
    return search(_TRAINED, SOURCE, NETWORKS[network].compression, arguments, {"dataset.train_share": train_share})


def our_stage(stage: Stage, seed: int, scheme: str, parameters: Mapping[str, Any]) -> None:
    """Runs a stage of ours.

    Args:
        stage: The stage.
        seed: Seeds it.
        scheme: `ours` or `searched`.
        parameters: Pipeline parameter -> value; the others have their defaults.
    """
    from collabopt.components.engine.stages import run_stage

    given = vars(Parameters(**{**parameters, "batch_size": BATCH_SIZE, "seed": seed}))
    run_stage(
        stage.technique.name,
        stage=stage.name,
        parent=str(_directory(scheme, stage.parent)),
        dataset=_DATA,
        output=str(_directory(scheme, stage.name)),
        task=DEFAULT_TASK,
        settings=inputs_of(stage.technique.name, given),
        overrides=SETTINGS.get(stage.name, {}) if scheme == "searched" else {},
    )


def stock_stage(stage: Stage, seed: int) -> None:
    """Runs the same stage by stock TFMOT."""
    from stock_stages import run_stock_stage

    run_stock_stage(
        stage.technique.name,
        parent=_directory("stock", stage.parent),
        dataset=Path(_DATA),
        output=_directory("stock", stage.name),
        settings=STOCK[stage.technique.name],
        seed=seed,
    )


def leaf_figures(stage: Stage, scheme: str) -> dict[str, Any]:
    """What a leaf's file shows and does."""
    import numpy as np

    from collabopt.components.engine.deployed.evaluate import predict
    from collabopt.components.engine.deployed.inspect import inspect_tflite
    from collabopt.components.engine.deployed.npu import estimate_npu

    directory = _directory(scheme, stage.name)
    tflite = (directory / "model.tflite").read_bytes()
    data = StoredDataset(_DATA)
    right = np.argmax(predict(tflite, data.inputs("test")), axis=1) == data.labels("test")
    deployed, npu = inspect_tflite(tflite), estimate_npu(tflite, ACCELERATOR)
    sizes = ("tflite_bytes", "gzip_bytes", "zip_bytes", "packed_bytes", "weight_entropy_bytes", "weight_packed_bytes")
    return {
        "accuracy": float(np.mean(right)),
        **{name: getattr(deployed, name) for name in sizes},
        "contents_deflated": deployed.contents_deflated,
        "npu_latency_ms": npu.latency_ms,
        "npu_flash_bytes": npu.flash_bytes,
        "npu_weight_bytes": npu.weight_bytes,
        "int8": not deployed.float_operators and not deployed.float_weights,
        "broken": _broken(stage, scheme, directory),
    }


def _broken(stage: Stage, scheme: str, directory: Path) -> list[str]:
    """Layers that do not hold what the leaf's ancestors have won."""
    from stock_stages import judge

    if scheme != "stock":
        contract = json.loads((directory / "report.json").read_text(encoding="utf-8"))["contract"]
    else:
        kept = properties_after(above.technique.name for above in TREE.path(stage.name)) & {SPARSE, CLUSTERED}
        parent = _directory(scheme, stage.parent)
        contract = judge(parent, directory, sparse=SPARSE in kept, clustered=CLUSTERED in kept)["contract"]
    return sorted({broken["layer"] for broken in contract["broken"]})


def _directory(scheme: str, stage: str) -> Path:
    """Where a stage lies; both schemes of ours begin with the same baseline."""
    return Path(ROOT) if stage == ROOT and scheme != "stock" else Path(f"{scheme}-{stage}")


def cover(
    scheme: str, seed: int, parameters: Mapping[str, Any], measure: Measure
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Takes a prepared network through the tree.

    Args:
        scheme: One of `SCHEMES`.
        seed: Seeds every stage.
        parameters: See `our_stage`.
        measure: (work, name) -> its outcome, in a process of its own.

    Yields:
        (stage, how it went), parents first.
    """
    ours = functools.partial(our_stage, scheme=scheme, parameters=parameters)
    run: Callable[..., None] = stock_stage if scheme == "stock" else ours
    grown = stages_of(PIPELINE if scheme == "searched" else "exhaustive")
    failed: set[str] = set()
    for stage in [stage for stage in TREE if stage.name in grown]:
        if stage.parent in failed:
            row = {"status": "parent", "error": f"there is no {stage.parent}"}
        else:
            row = _row(measure(functools.partial(run, stage, seed), f"{scheme}-{stage.name}"))
            if stage.leaf and row["status"] == "ok":
                measured = measure(functools.partial(leaf_figures, stage, scheme), f"{scheme}-{stage.name}-figures")
                row |= measured.result or {"status": "unmeasured", "error": measured.error}
        failed |= {stage.name} if row["status"] != "ok" else set()
        yield stage.name, row


def _row(outcome: Outcome) -> dict[str, Any]:
    error = {"error": outcome.error} if outcome.error else {}
    return {"status": outcome.status, **error, "cpu_seconds": round(outcome.cpu_seconds, 1)}


def measure_missing(results: Results, arguments: argparse.Namespace) -> None:
    """Measures what the file does not hold yet, one network and seed at a time."""
    for module in PREPARED:
        importlib.import_module(module)
    for seed in arguments.seeds:
        for network in arguments.networks:
            train_share = arguments.train_share or NETWORKS[network].train_share
            missing = [scheme for scheme in arguments.schemes if not results.has(network, scheme, seed)]
            if not missing:
                continue
            with tempfile.TemporaryDirectory(prefix="evidence-") as directory:
                os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{directory}/mlflow.db"
                measure = functools.partial(_measure_in, Path(directory), arguments)
                baseline = measure(functools.partial(prepare, network, seed, train_share), "prepare")
                if baseline.result is None:
                    raise SystemExit(f"{network}: there is no baseline: {baseline.error}")
                for scheme in missing:
                    parameters = _searched(results, network, seed, train_share, measure) if scheme == "searched" else {}
                    stages: dict[str, Any] = {}
                    for stage, row in cover(scheme, seed, parameters, measure):
                        stages[stage] = row
                        print(f"{network:18}{scheme:7}{seed:3}  {stage:22}{_line(row)}", flush=True)
                    results.add(network, scheme, seed, baseline.result, stages, f"{datetime.now():%Y-%m-%d}")


def _searched(results: Results, network: str, seed: int, train_share: float, measure: Measure) -> dict[str, Any]:
    """The parameters that the network's search has found; the first seed that needs them searches."""
    if network not in results.searches:
        found = measure(functools.partial(find_configuration, network, seed, train_share), "search")
        if found.result is None:
            raise SystemExit(f"{network}: the search has failed: {found.error}")
        print(f"{network:18}search {seed:3}  {found.result}", flush=True)
        results.add_search(network, {"seed": seed, **found.result})
    return results.searches[network]["parameters"]


def _measure_in(directory: Path, arguments: argparse.Namespace, work: Callable[[], Any], name: str) -> Outcome:
    return run_measured(work, directory, name, arguments.limit, arguments.memory_limit)


def _conditions(train_share: float | None) -> dict[str, Any]:
    """What results depend on."""
    import collabopt.components.engine  # noqa: F401 - selects Keras 2 before TensorFlow is imported
    from collabopt.components.engine.settings import TrainingSettings
    from collabopt.components.engine.versions import versions

    ours = {"batch_size": BATCH_SIZE, "distillation_weight": TrainingSettings().distillation_weight}
    return {
        "versions": versions(),
        "cores": os.cpu_count(),
        "train_share": {name: train_share or each.train_share for name, each in NETWORKS.items()},
        "accelerator": ACCELERATOR,
        "ours": {**vars(Parameters()), **ours},
        "searched": {**CONDITIONS, **ours, "compression": {name: each.compression for name, each in NETWORKS.items()}},
        "stock": STOCK,
    }


def _machine() -> dict[str, str]:
    tools = {name: metadata.version(name) for name in ("ethos-u-vela", "optuna")}
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {**tools, "processor": named[0].partition(":")[2].strip() if named else platform.machine()}


def _line(row: dict[str, Any]) -> str:
    if "accuracy" in row:
        return f"{row['accuracy']:.4f} {row['packed_bytes']:,}"
    return f"{row['status']} {row.get('error', '')}".rstrip()


def main() -> None:
    """Measures what is missing, prints both tables, draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--train-share", type=float, help="of the train split; default: the network's own")
    parser.add_argument("--limit", type=float, default=600, metavar="SECONDS", help="processor time of one stage")
    parser.add_argument("--memory-limit", type=float, default=9, metavar="GB", help="of one stage")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file of results; default: %(default)s")
    parser.add_argument("--plot", type=Path, default=PLOT, help="the plot, as SVG; default: %(default)s")
    parser.add_argument("--no-run", action="store_true", help="only print and draw what is in the file")
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):  # end the stage that runs, too, even as a background job
        signal.signal(number, signal.default_int_handler)
    path = arguments.json.resolve()
    if arguments.no_run:
        results = Results(path, None, SCHEMES, {})
    else:
        results = Results(path, json.loads(json.dumps(_conditions(arguments.train_share))), SCHEMES, _machine())
        if results.left_out:
            print(f"{path}: {results.left_out} runs were made under other conditions and do not count", file=sys.stderr)
        measure_missing(results, arguments)
    print(summary(results), markdown(results), baselines(results), cost(results), sep="\n\n")
    arguments.plot.write_text(plot(results), encoding="utf-8")


if __name__ == "__main__":
    main()
