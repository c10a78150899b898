"""Small pipelines that behave, or misbehave, as real ones do, without a model in sight."""

from kfp import dsl

# Every pipeline takes what the command line passes to any: model, data and settings.


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def toy_interior(stage: str, epochs: int = 2, seconds: float = 0.0):
    """Reports epochs and metrics, as a stage that trains."""
    import os
    import time

    from collabopt.components.engine.progress import emit
    from collabopt.components.engine.session import stage_session

    with stage_session(stage):
        print(f"this is {stage}, run {os.environ['COLLABOPT_PIPELINE_RUN_ID']}", flush=True)
        for epoch in range(1, epochs + 1):
            time.sleep(seconds / epochs)
            emit(stage, "epoch", epoch=epoch, epochs=epochs, metrics={"loss": 1 / epoch, "f1": 0.9 + epoch / 100})
        emit(stage, "finished", metrics={"f1": 0.93, "f1_drop": 0.01, "sparsity": 0.5})


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def toy_leaf(stage: str, model: dsl.Output[dsl.Model], content: str = "first"):
    """Writes what a leaf writes."""
    from pathlib import Path

    from collabopt.components.engine.progress import emit
    from collabopt.components.engine.records import (
        Contract,
        DeployedModel,
        LeafReport,
        MetricOfRecord,
        Step,
        write_record,
    )
    from collabopt.components.engine.session import stage_session

    with stage_session(stage):
        directory = Path(model.path)
        directory.mkdir(parents=True)
        for name in ("model.tflite", "model.tflite.gz", "model_data.cc", "model_data.h", "training_curve.csv"):
            (directory / name).write_text(content)
        metrics = {"f1": 0.92, "f1_drop": 0.02, "sparsity": 0.5, "max_distinct_values_per_tensor": 16.0}
        report = LeafReport(
            lineage=[Step(stage=stage, technique="post_training_quantize")],
            task="toy:task",
            dataset_digest="0",
            metric=MetricOfRecord(name="f1", higher_is_better=True, baseline=0.94),
            metrics=metrics,
            deployed=DeployedModel(
                sha256="0",
                tflite_bytes=20480,
                gzip_bytes=10240,
                zip_bytes=10250,
                input_dtype="int8",
                output_dtype="int8",
                operators={},
            ),
            contract=Contract(),
        )
        write_record(report, directory)
        emit(stage, "finished", metrics={**metrics, "tflite_bytes": 20480.0, "gzip_bytes": 10240.0})


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def toy_gate(decision: dsl.Output[dsl.Artifact], winner: str = "", when_none_qualifies: str = "keep"):
    """Decides as it is told."""
    from pathlib import Path

    from collabopt.components.engine.errors import CollaboptError
    from collabopt.components.engine.gate.decision import Baseline, Decision, Verdict
    from collabopt.components.engine.policy.policy import Policy
    from collabopt.components.engine.progress import emit
    from collabopt.components.engine.session import stage_session

    with stage_session("gate"):
        verdict = Verdict(
            leaf="ptq",
            qualified=bool(winner),
            reason="within every limit" if winner else "0.02 worse than the baseline; accepted is at most 0.01",
            pathway="standard",
            techniques=("post_training_quantize",),
            metric=0.92,
            drop=0.02,
            figures={"tflite_bytes": 20480, "gzip_bytes": 10240, "zip_bytes": 10250},
            sha256="0",
        )
        outcome = Decision(
            policy=Policy(when_none_qualifies=when_none_qualifies),
            baseline=Baseline(stage="baseline", metric="f1", higher_is_better=True, value=0.94, dataset_digest="0"),
            winner=winner or None,
            winner_sha256="0" if winner else None,
            outcome=f"'{winner}' is shipped" if winner else "none of 1 leaves qualifies; nothing is shipped",
            verdicts=(verdict,),
        )
        Path(decision.path).mkdir(parents=True)
        (Path(decision.path) / "decision.json").write_text(outcome.model_dump_json())
        if outcome.failed:
            raise CollaboptError(outcome.outcome)
        emit("gate", "finished", metrics={})


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def toy_failure(stage: str, how: str):
    """Fails: with a message, without one, or before the stage has begun."""
    import os
    import signal

    if how == "import":
        import no_such_module_at_all  # noqa: F401
    from collabopt.components.engine.errors import CollaboptError
    from collabopt.components.engine.session import stage_session

    with stage_session(stage):
        print("about to fail", flush=True)
        if how == "message":
            raise CollaboptError("the learning rate is too high", where="layer conv_7", todo="halve it")
        os.kill(os.getpid(), signal.SIGKILL)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def toy_environment():
    """Prints the environment to the stage's log."""
    import os

    from collabopt.components.engine.session import stage_session

    with stage_session("pruned"):
        for name, value in os.environ.items():
            if "\n" not in value:
                print(f"{name}={value}", flush=True)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def toy_sleeper(stubborn: bool = False):
    """Sleeps in a process and in a child of that process; a stubborn one does not listen to SIGTERM."""
    import os
    import signal
    import subprocess
    import sys
    from pathlib import Path

    from collabopt.components.engine.session import stage_session

    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with stage_session("qat"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        Path(os.environ["TOY_PIDS"]).write_text(f"{os.getpid()} {child.pid} {os.getppid()}")
        child.wait()


@dsl.pipeline(name="toy-success")
def success(
    model: str = "",
    data: str = "",
    settings: dict = {},  # noqa: B006
    model_name: str = "ptq",
    releases: str = "",
    content: str = "first",
    seconds: float = 0.0,
    when_none_qualifies: str = "keep",
):
    """An interior stage, a leaf, a gate."""
    pruned = toy_interior(stage="pruned", seconds=seconds)
    leaf = toy_leaf(stage="ptq", content=content).after(pruned)
    toy_gate(winner=model_name, when_none_qualifies=when_none_qualifies).after(leaf)


@dsl.pipeline(name="toy-failing")
def failing(model: str = "", data: str = "", settings: dict = {}, releases: str = "", how: str = "message"):  # noqa: B006
    """A stage that succeeds, one that fails, one that is never reached."""
    pruned = toy_interior(stage="pruned", epochs=1)
    failed = toy_failure(stage="qat", how=how).after(pruned)
    toy_gate().after(failed)


@dsl.pipeline(name="toy-sleeping")
def sleeping(model: str = "", data: str = "", settings: dict = {}, releases: str = ""):  # noqa: B006
    """Sleeps for minutes."""
    toy_sleeper()


@dsl.pipeline(name="toy-stubborn")
def stubborn(model: str = "", data: str = "", settings: dict = {}, releases: str = ""):  # noqa: B006
    """Sleeps for minutes and does not listen to SIGTERM."""
    toy_sleeper(stubborn=True)


@dsl.pipeline(name="toy-undecided")
def undecided():
    """Ends without a gate."""
    toy_interior(stage="pruned", epochs=1)


@dsl.pipeline(name="toy-environment")
def environment():
    """Tells what it finds in the environment."""
    toy_gate(winner="ptq").after(toy_environment())
