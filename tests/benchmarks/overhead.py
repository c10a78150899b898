"""What the pipeline costs beside the work: the tree by a bare TFMOT script against `collabopt run`, in turn.

`python tests/benchmarks/overhead.py [--rounds N]` trains the digits baseline once, then alternates both sides over the
same baseline, data and settings, and prints the ratio of wall times and where the pipeline's time goes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from collabopt.pipelines.tree import TREE

HERE = Path(__file__).resolve().parent
COLLABOPT = str(Path(sys.executable).parent / "collabopt")
# The bare script has none either.
WITHOUT_TEACHER = [f"--set={stage.name}.distillation_weight=0" for stage in TREE if stage.trains]


def prepare(work: Path) -> tuple[Path, Path]:
    """Trains the baseline, untimed; returns its file and the `Dataset` directory."""
    from collabopt.components.engine.datasets.load import load_dataset
    from collabopt.components.engine.datasets.store import StoredDataset
    from collabopt.components.engine.models.examples import example_model
    from collabopt.components.engine.models.store import save_model
    from collabopt.components.engine.settings import DatasetSettings
    from collabopt.components.engine.training.classification import TASK

    load_dataset("example://digits", work / "data", DatasetSettings(), TASK)
    return save_model(example_model("digits", StoredDataset(work / "data"), 0), work / "baseline"), work / "data"


def timed(command: list[str], directory: Path) -> float:
    """Wall seconds of a command; its output goes to `output.log`."""
    directory.mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    with (directory / "output.log").open("w") as log:
        subprocess.run(command, cwd=directory, env=environment, stdout=log, stderr=log, check=True)
    return time.perf_counter() - started


def spent_in_mlflow(directory: Path) -> dict[str, float]:
    """Stage -> wall seconds of its MLflow run: the stage without start-up and hand-over."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`mlflow.parentRunId` != ''")
    return {run.info.run_name: (run.info.end_time - run.info.start_time) / 1000 for run in runs}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        model, data = prepare(work)
        rounds = []
        for number in range(arguments.rounds):
            bare_command = [sys.executable, str(HERE / "bare_tree.py"), str(model), str(data), "leaves"]
            bare = timed(bare_command, work / f"bare-{number}")
            ours_directory = work / f"pipeline-{number}"
            ours_command = [COLLABOPT, "run", "--model", str(model), "--data", "example://digits", *WITHOUT_TEACHER]
            ours = timed(ours_command, ours_directory)
            stages = spent_in_mlflow(ours_directory)
            rounds.append(
                {"bare_s": bare, "pipeline_s": ours, "ratio": ours / bare, "in_stages_s": sum(stages.values())}
            )
            print(json.dumps({name: round(value, 2) for name, value in rounds[-1].items()}), flush=True)
        ratio = statistics.median(row["ratio"] for row in rounds)
        between = statistics.median(row["pipeline_s"] - row["in_stages_s"] for row in rounds)
        print(f"pipeline / bare script, median of {len(rounds)}: {ratio:.2f}")
        print(f"of the pipeline, outside its stages' MLflow runs (start-up, hand-over, gate): {between:.1f} s")
        if arguments.json:
            from collabopt.components.engine.versions import versions

            result = {"measured": f"{datetime.now():%Y-%m-%d}", "cores": os.cpu_count(), "versions": versions()}
            arguments.json.write_text(json.dumps({**result, "rounds": rounds, "median_ratio": ratio}, indent=2) + "\n")


if __name__ == "__main__":
    main()
