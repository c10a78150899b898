"""Which networks go through the tree: does every leaf run, hold its contract, become all int8, and at what cost.

`python tests/benchmarks/coverage.py [--schemes ours stock] [--architectures ...] [--leaves ...] [--json FILE]` takes
tf_keras.applications and three small networks at reduced input size, with random data and a few training steps,
through our stages and through stock TFMOT, every stage in a process of its own. The whole matrix takes hours; results
are written after every stage, and what is in the file already, made with the same versions, is not measured again.
"""

import argparse
import functools
import importlib
import json
import os
import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from architectures import ARCHITECTURES, build, features
from measured_process import Outcome, run_measured

from collabopt.components.engine.techniques import CLUSTERED, SPARSE, properties_after
from collabopt.components.engine.whole_file import written_whole
from collabopt.pipelines.tree import ROOT, TREE, Stage

SCHEMES = ("ours", "stock")
LEAVES = tuple(stage.name for stage in TREE.leaves())
RESULTS = Path(__file__).resolve().parent / "results" / "coverage.json"
SEED = 0
SIZES = {"train": 8, "calibration": 4, "validation": 4, "test": 8}
TRAINING = {"epochs": 1, "batch_size": 4}
TECHNIQUE_SETTINGS = {
    "prune": {**TRAINING, "target_sparsity": 0.5},
    "cluster": {**TRAINING, "number_of_clusters": 16},
    "sparsity_preserving_cluster": {**TRAINING, "number_of_clusters": 16},
    "post_training_quantize": {},
}
CONDITIONS = {"seed": SEED, "samples": SIZES, "training": TRAINING, "techniques": TECHNIQUE_SETTINGS}
PREPARED = ("tensorflow", "tf_keras.layers", "tensorflow_model_optimization", "ai_edge_litert.interpreter", "mlflow")
PREPARED += ("mlflow.store.db.utils", "mlflow.store.tracking.sqlalchemy_store")

Measure = Callable[[Callable[[], Any], str], Outcome]


class Results:
    """The file of results: a list of runs, one for a network under a scheme, with what every stage of it came to."""

    def __init__(self, path: Path) -> None:
        """Opens the file, which need not exist."""
        self._path = path
        self._content: dict[str, Any] = {"runs": []}
        if path.is_file():
            self._content = json.loads(path.read_text(encoding="utf-8"))

    def run(self, scheme: str, architecture: str) -> dict[str, Any] | None:
        """The run of a network under a scheme."""
        found = (run for run in self.runs() if (run["scheme"], run["architecture"]) == (scheme, architecture))
        return next(found, None)

    def runs(self) -> list[dict[str, Any]]:
        """All runs, in the order of schemes and networks."""
        order = {name: number for number, name in enumerate(ARCHITECTURES)}
        return sorted(
            self._content["runs"], key=lambda run: (run["scheme"], order.get(run["architecture"], len(order)))
        )

    def open_run(self, scheme: str, architecture: str) -> dict[str, Any]:
        """The run to go on with; a new one if there is none, or one made with other versions or conditions."""
        from collabopt.components.engine.versions import versions

        made_with = {"versions": versions(), "cores": os.cpu_count(), **CONDITIONS}
        run = self.run(scheme, architecture)
        if run is None or any(run.get(name) != value for name, value in made_with.items()):
            if run is not None:
                self._content["runs"].remove(run)
            run = {"scheme": scheme, "architecture": architecture, **made_with, "stages": {}}
            self._content["runs"].append(run)
        return run

    def save(self) -> None:
        """Writes the file in one piece."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self._path) as written:
            written.write_text(json.dumps({"runs": self.runs()}, indent=1) + "\n", encoding="utf-8")


def prepare(architecture: str) -> dict[str, Any]:
    """Writes network, data and an empty MLflow store into the working directory."""
    from collabopt.components.engine.datasets.splits import Samples, Splits
    from collabopt.components.engine.datasets.store import write_dataset
    from collabopt.components.engine.models.store import save_model
    from collabopt.components.engine.tracking.store import connect, experiment_id

    model = build(architecture, SEED)
    save_model(model, Path("source"))
    random = np.random.default_rng(SEED)
    samples = {
        name: Samples(features(architecture, size, random), random.integers(0, model.output_shape[-1], size))
        for name, size in SIZES.items()
    }
    scale = ARCHITECTURES[architecture].scale
    write_dataset(Splits(samples, scale=scale), "data", source="random", seed=SEED)
    experiment_id(connect())
    return {"input_shape": list(model.input_shape[1:]), "parameters": model.count_params()}


def settings_of(technique: str) -> dict[str, Any]:
    """What a technique runs with, under either scheme."""
    return TECHNIQUE_SETTINGS.get(technique, TRAINING)


def our_stage(stage: Stage | None) -> dict[str, Any]:
    """Runs one of our stages, the import where it is None; what a leaf's report says."""
    from collabopt.components.engine.stages import import_model_stage, run_stage
    from collabopt.components.engine.training.task import DEFAULT_TASK

    common = {"dataset": "data", "task": DEFAULT_TASK, "overrides": {"seed": SEED}}
    if stage is None:
        import_model_stage(source="source/model.keras", output=ROOT, settings={}, **common)
        return {}
    settings = settings_of(stage.technique.name)
    run_stage(
        stage.technique.name, stage=stage.name, parent=stage.parent, output=stage.name, settings=settings, **common
    )
    return facts(json.loads(Path(stage.name, "report.json").read_text(encoding="utf-8"))) if stage.leaf else {}


def stock_stage(stage: Stage) -> None:
    """Runs the same stage by stock TFMOT."""
    from stock_stages import run_stock_stage

    settings = settings_of(stage.technique.name)
    run_stock_stage(
        stage.technique.name,
        parent=_stock_directory(stage.parent),
        dataset=Path("data"),
        output=Path(stage.name),
        settings=settings,
        seed=SEED,
    )


def judged_stock_leaf(stage: Stage) -> dict[str, Any]:
    """What the file of a stock leaf shows."""
    from stock_stages import judge

    kept = properties_after(above.technique.name for above in TREE.path(stage.name)) & {SPARSE, CLUSTERED}
    report = judge(_stock_directory(stage.parent), Path(stage.name), sparse=SPARSE in kept, clustered=CLUSTERED in kept)
    return facts(report)


def facts(report: dict[str, Any]) -> dict[str, Any]:
    """What the matrix wants to know of a leaf."""
    deployed = report["deployed"]
    float_weights = sum(weight["dtype"].startswith("float") for weight in deployed["weights"])
    ends = (deployed["input_dtype"], deployed["output_dtype"])
    return {
        "contract": _contract(report.get("contract")),
        **(
            {"contract_by_channel": _contract(report["contract_by_channel"])} if "contract_by_channel" in report else {}
        ),
        "int8": not deployed["float_operators"] and not float_weights and ends == ("int8", "int8"),
        "float_operators": dict(Counter(deployed["float_operators"])),
        "float_reasons": dict(Counter(deployed.get("float_reasons", {}).values())),
        "float_weights": float_weights,
        "tflite_bytes": deployed["tflite_bytes"],
    }


def _contract(contract: dict[str, Any] | None) -> dict[str, Any] | None:
    if contract is None:
        return None
    return {"holds": not contract["broken"], "layers": len(contract["layers"]), "broken": contract["broken"]}


def _stock_directory(stage: str) -> Path:
    return Path("source" if stage == ROOT else stage)


def cover(scheme: str, architecture: str, leaves: Iterable[str], measure: Measure) -> Iterator[tuple[str, Any]]:
    """Takes one network through the tree.

    Args:
        scheme: `ours` or `stock`.
        architecture: Name of the network.
        leaves: Leaves to make; the stages above them are made too.
        measure: (work, name) -> its outcome, in a process of its own.

    Yields:
        (`network`, shape and size of it), then (stage, how it went) for every stage, parents first.
    """
    prepared = measure(functools.partial(prepare, architecture), "prepare")
    yield "network", prepared.result or {"error": prepared.error}
    failed = set() if prepared.status == "ok" else {ROOT}
    if scheme == "ours" and not failed:
        row = _row(measure(functools.partial(our_stage, None), ROOT))
        failed |= {ROOT} if row["status"] != "ok" else set()
        yield ROOT, row
    for stage in TREE.restricted_to(leaves):
        if stage.parent in failed:
            failed.add(stage.name)
            yield stage.name, {"status": "parent", "error": f"there is no {stage.parent}"}
            continue
        row = _measured(scheme, stage, measure)
        failed |= {stage.name} if row["status"] != "ok" else set()
        yield stage.name, row


def _measured(scheme: str, stage: Stage, measure: Measure) -> dict[str, Any]:
    if scheme == "ours":
        return _row(measure(functools.partial(our_stage, stage), stage.name))
    row = _row(measure(functools.partial(stock_stage, stage), stage.name))
    if not stage.leaf or row["status"] != "ok":
        return row
    judged = measure(functools.partial(judged_stock_leaf, stage), f"{stage.name}-judged")
    return {**row, **(judged.result or {"contract": None, "judging": judged.error})}


def _row(outcome: Outcome) -> dict[str, Any]:
    measured = {name: round(getattr(outcome, name), 2) for name in ("seconds", "cpu_seconds", "peak_gb")}
    error = {"error": outcome.error} if outcome.error else {}
    return {"status": outcome.status, **error, **measured, **(outcome.result or {})}


def verdict(row: dict[str, Any] | None) -> str:
    """A leaf in a few words: `ok` where it holds its contract and is all int8, else what does not; and its cost.

    The cost is in seconds of processor time and GB of peak memory. For stock TFMOT, the layers that break their
    contract are also counted with palettes by output channel, as it makes them.
    """
    if row is None:
        return "-"
    if row["status"] != "ok":
        return "no parent" if row["status"] == "parent" else row["status"]
    marks = []
    if row.get("contract") is None:
        marks.append("unchecked")
    elif not row["contract"]["holds"]:
        by_channel = row.get("contract_by_channel")
        note = f" ({_broken_layers(by_channel)} by channel)" if by_channel else ""
        marks.append(f"breaks {_broken_layers(row['contract'])}{note}")
    if not row.get("int8"):
        marks.append(f"{sum(row.get('float_operators', {}).values())} float")
    return f"{', '.join(marks) or 'ok'} {row['cpu_seconds']:.0f}s {row['peak_gb']:.1f}G"


def _broken_layers(contract: dict[str, Any]) -> int:
    return len({broken["layer"] for broken in contract["broken"]})


def table(results: Results, scheme: str) -> list[list[str]]:
    """Head and one line for every network that was measured."""
    lines = [["", *LEAVES]]
    for run in results.runs():
        if run["scheme"] == scheme:
            lines.append([run["architecture"], *(verdict(run["stages"].get(leaf)) for leaf in LEAVES)])
    return lines


def summary(results: Results, scheme: str) -> str:
    """Counts over all leaves that were measured."""
    rows = [
        run["stages"][leaf]
        for run in results.runs()
        for leaf in LEAVES
        if run["scheme"] == scheme and leaf in run["stages"]
    ]
    made = [row for row in rows if row["status"] == "ok"]
    holding = sum(bool((row.get("contract") or {}).get("holds")) for row in made)
    whole = sum(bool(row.get("int8")) for row in made)
    good = sum(bool(row.get("int8") and (row.get("contract") or {}).get("holds")) for row in made)
    return (
        f"{scheme}: {len(made)} of {len(rows)} leaves run, {holding} hold their contract, {whole} are all int8, "
        f"{good} are both"
    )


def as_text(lines: list[list[str]], markdown: bool) -> str:
    """A table in columns, or in Markdown."""
    if markdown:
        head, *body = (f"| {' | '.join(line)} |" for line in lines)
        return "\n".join([head, "|---" * len(lines[0]) + "|", *body])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def measure_missing(results: Results, arguments: argparse.Namespace) -> None:
    """Measures what the file does not hold yet, one network at a time."""
    for module in PREPARED:
        importlib.import_module(module)
    for architecture in arguments.architectures:
        for scheme in arguments.schemes:
            run = results.open_run(scheme, architecture)
            missing = [leaf for leaf in arguments.leaves if arguments.again or leaf not in run["stages"]]
            if not missing:
                continue
            with tempfile.TemporaryDirectory(prefix="coverage-") as directory:
                os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{directory}/mlflow.db"
                measure = functools.partial(_measure_in, Path(directory), arguments)
                for stage, row in cover(scheme, architecture, missing, measure):
                    run["measured"] = f"{datetime.now():%Y-%m-%d}"
                    if stage == "network":
                        run.update(row)
                        continue
                    run["stages"][stage] = row
                    results.save()
                    print(f"{scheme:6}{architecture:18}{stage:22}{_line(row)}", flush=True)


def _measure_in(directory: Path, arguments: argparse.Namespace, work: Callable[[], Any], name: str) -> Outcome:
    return run_measured(work, directory, name, arguments.limit, arguments.memory_limit)


def _line(row: dict[str, Any]) -> str:
    if row["status"] == "ok" and "int8" not in row:
        return f"done {row['cpu_seconds']:.0f}s {row['peak_gb']:.1f}G"
    return f"{verdict(row)}  {row.get('error', '')}".rstrip()


def main() -> None:
    """Measures what is missing, and prints the matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES)
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    parser.add_argument("--leaves", nargs="+", default=LEAVES, choices=LEAVES)
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="processor time of one stage")
    parser.add_argument("--memory-limit", type=float, default=9, metavar="GB", help="of one stage")
    parser.add_argument("--json", type=Path, default=RESULTS, help="file of results; default: %(default)s")
    parser.add_argument("--again", action="store_true", help="measure what is in the file already, too")
    parser.add_argument("--no-run", action="store_true", help="only print what is in the file")
    parser.add_argument("--markdown", action="store_true", help="print the matrix as Markdown")
    arguments = parser.parse_args()
    results = Results(arguments.json.resolve())
    for number in (signal.SIGINT, signal.SIGTERM):  # end the stage that runs, too, even as a background job
        signal.signal(number, signal.default_int_handler)
    if not arguments.no_run:
        import collabopt.components.engine  # noqa: F401 - selects Keras 2 before TensorFlow is imported

        measure_missing(results, arguments)
    for scheme in arguments.schemes:
        print(f"\n{summary(results, scheme)}\n\n{as_text(table(results, scheme), arguments.markdown)}")


if __name__ == "__main__":
    main()
