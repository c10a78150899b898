import functools
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from collabopt.pipelines.tree import TREE
from tests.pipelines import refusal

refused = functools.partial(refusal.refused, left=[])


def test_version(collabopt: Callable[..., tuple[int, str, str]]):
    code, output, _ = collabopt("--version")
    assert code == 0
    assert output == f"collabopt {importlib.metadata.version('collabopt')}\n"


def test_the_tree_names_every_stage_once_within_80_columns(collabopt: Callable[..., tuple[int, str, str]]):
    code, output, _ = collabopt("tree")
    assert code == 0
    words = [line.replace("│", " ").replace("├──", " ").replace("└──", " ").split() for line in output.splitlines()]
    assert [line[0] for line in words] == ["baseline", *(stage.name for stage in TREE.stages)]
    described = {line[0]: line[1:] for line in words}
    assert described["pcqat"] == ["sparsity_cluster_preserving_qat", "trains,", "leaf,", "collaborative"]
    assert described["ptq"] == ["post_training_quantize", "leaf,", "standard"]
    assert described["pruned"] == ["prune", "trains"]
    assert max(len(line) for line in output.splitlines()) < 80


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--help"],
        ["tree"],
        ["run", "--help"],
        ["prescreen", "--help"],
        ["sensitivity", "--help"],
        ["search", "--help"],
        ["compile", "--help"],
        ["run", "--example", "digits", "--pipeline", "x"],
        ["submit", "--help"],
        ["submit", "--model", "local.keras", "--data", "task"],
        ["schedule", "--help"],
        ["schedule", "--example", "digits", "--cron", "0 25 * * *"],
    ],
)
def test_what_starts_nothing_imports_nothing_heavy(tmp_path: Path, arguments: list[str]):
    heavy = "kfp", "mlflow", "numpy", "optuna", "tensorflow"
    script = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print('heavy:', [m for m in {heavy} if m in sys.modules]))\n"
        "from collabopt.pipelines.cli import main\n"
        "main()"
    )
    ended = subprocess.run([sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "heavy: []"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", "--model", "m.keras"],
        ["run", "--data", "d.npz"],
        ["run", "--example", "digits", "--data", "d.npz"],
        ["run", "--no-such-option"],
        ["no-such-command"],
        ["compile", "pruning"],
    ],
)
def test_usage_errors_end_with_2(collabopt: Callable[..., tuple[int, str, str]], arguments: list[str]):
    code, _, errors = collabopt(*arguments)
    assert code == 2
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--pipeline", "prunin"], ["unknown pipeline 'prunin'", "did you mean 'pruning'", "exhaustive, staged"]),
        (["--set", "pqatt.epochs=3"], ["unknown stage 'pqatt'", "did you mean 'pqat'", "clustered_ptq"]),
        (["--set", "cqat.epochs=3", "--pipeline", "pruning"], ["unknown stage 'cqat'"]),
        (["--set", "pqat.epoch=3"], ["stage 'pqat' has no parameter 'epoch'", "did you mean 'epochs'", "optimizer"]),
        (["--set", "pqat.epochs=0"], ["stage 'pqat'", "epochs=0"]),
        (["--set", "pqat.epochs"], ["does not read as a setting", "STAGE.PARAMETER=VALUE"]),
        (["--set", "epochs=3"], ["does not read as a setting"]),
        (["--set", "pqat.epochs=[1"], ["does not read as a value"]),
        (["--set", "pqat.epochs=1", "--set", "pqat.epochs=2"], ["set twice"]),
        (["--set", "pruned.initial_sparsity=0.9"], ["initial_sparsity must be below target_sparsity"]),
        (["--param", "sparsitty=0.5"], ["unknown pipeline parameter 'sparsitty'", "did you mean 'sparsity'"]),
        (["--param", "sparsity=1"], ["'sparsity' is out of range", "less than 1"]),
        (["--param", "sparsity=half"], ["'half' is not a number"]),
        (["--param", "epochs=1.5"], ["'1.5' is not a whole number"]),
        (["--param", "epochs=true"], ["'true' is not a whole number"]),
        (["--param", "epochs"], ["does not read as a parameter"]),
        (["--param", "qat_epochs=0"], ["'qat_epochs' is out of range"]),
        (["--param", "clusters=2"], ["'clusters' is out of range", "pruned_clustered", "equal to 3"]),
        (["--param", "seed=1", "--param", "seed=1"], ["given twice"]),
        (["--param", "model=x"], ["use --model"]),
        (["--param", "settings={}"], ["use --set"]),
        (["--policy", "nowhere.yaml"], ["no such policy file", "nowhere.yaml"]),
        (["--task", "task"], ["does not read as a task", "MODULE:ATTRIBUTE"]),
        (["--task", "no_such_module:TASK"], ["no module 'no_such_module'"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_can_be_known_is_said_before_anything_starts(
    collabopt: Callable[..., tuple[int, str, str]], options: list[str], expected: list[str]
):
    refused(collabopt("run", "--example", "digits", *options), *expected)


def test_an_unknown_example_is_refused(collabopt: Callable[..., tuple[int, str, str]]):
    refused(collabopt("run", "--example", "digit"), "unknown example 'digit'", "did you mean 'digits'", "fashion-mnist")


def test_missing_and_unsupported_sources_are_refused(collabopt: Callable[..., tuple[int, str, str]]):
    refused(collabopt("run", "--model", "no.keras", "--data", "no.npz"), "no such file", "--model no.keras")
    refused(collabopt("run", "--model", "s3://b/m", "--data", "no.npz"), "s3://", "gs://bucket/path")
    refused(collabopt("run", "--model", "gs://b/m", "--data", "no.npz"), "no such file", "--data no.npz")


def test_a_bad_policy_is_refused(collabopt: Callable[..., tuple[int, str, str]], tmp_path: Path):
    policy = tmp_path.parent / f"{tmp_path.name}.yaml"
    policy.write_text("goals: [{figure: metric, max_dropp: 0.1}]\n")
    refused(collabopt("run", "--example", "digits", "--policy", str(policy)), "max_dropp", str(policy))
    policy.write_text("goals: [{figure: loss, higher_is_better: false, threshold: 1}]\n")
    refused(collabopt("run", "--example", "digits", "--policy", str(policy)), "'loss' is neither", "goals[0]")


def test_an_output_that_is_a_file_is_refused(collabopt: Callable[..., tuple[int, str, str]], tmp_path: Path):
    file = tmp_path.parent / f"{tmp_path.name}.txt"
    file.write_text("a file")
    refused(collabopt("run", "--example", "digits", "--output", str(file)), "a file is where", str(file))
    assert file.read_text() == "a file"


def test_an_unreachable_mlflow_server_is_refused(
    collabopt: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    refused(collabopt("run", "--example", "digits"), "MLflow server cannot be reached", "127.0.0.1:9")


def test_a_missing_engine_is_told_how_to_install_it(
    collabopt: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name))
    refused(collabopt("run", "--example", "digits"), "missing: tensorflow", "pip install 'collabopt[engine]'")


def test_a_stage_of_its_own_may_differ_from_the_pipeline_parameter(
    collabopt: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
):
    from collabopt.pipelines import preflight

    planned = preflight.plan_run(
        pipeline="exhaustive",
        model="example://digits",
        data="example://digits",
        output=Path("out"),
        settings=["pruned_clustered.number_of_clusters=3", "qat.learning_rate=1e-5", "pruned.schedule=polynomial"],
        parameters=["clusters=2", "learning_rate=1"],
        name="my-model",
    )
    assert planned.arguments == {
        "model": "example://digits",
        "data": "example://digits",
        "model_name": "my-model",
        "clusters": 2,
        "learning_rate": 1.0,
        "settings": {
            "pruned_clustered": {"number_of_clusters": 3},
            "qat": {"learning_rate": 1e-5},
            "pruned": {"schedule": "polynomial"},
        },
    }
    assert isinstance(planned.arguments["learning_rate"], float)  # a KFP float takes no int
    assert planned.tracking_uri == f"sqlite:///{Path.cwd()}/mlflow.db"
    assert os.listdir() == []


def test_paths_are_made_absolute_and_the_policy_is_passed_as_text(
    collabopt: Callable[..., tuple[int, str, str]], tmp_path: Path
):
    from collabopt.pipelines import preflight

    (tmp_path / "m.keras").touch()
    (tmp_path / "my_task.py").touch()
    (tmp_path / "policy.yaml").write_text("when_none_qualifies: fail\n")
    planned = preflight.plan_run(
        pipeline="pruning",
        model="m.keras",
        data="gs://bucket/data",
        output=Path("out"),
        task="my_task:TASK",
        policy=Path("policy.yaml"),
    )
    assert planned.arguments == {
        "model": str(tmp_path / "m.keras"),
        "data": "gs://bucket/data",
        "task": "my_task:TASK",
        "policy": "when_none_qualifies: fail\n",
        "settings": {},
    }
    shown = {stage.name: stage.parent for stage in planned.stages}
    assert shown["pqat"] == "pruned"
    assert {"dataset", "baseline", "gate"} <= shown.keys()
    assert "cqat" not in shown


def test_a_run_ends_with_the_verdict_and_says_where_everything_is(
    tmp_path: Path, start_command: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    process = start_command("success", "--name", "ptq")
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert output.splitlines()[-3:] == [
        "'ptq' is shipped",
        "files: out",
        f"runs:  mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db",
    ]
    assert "\x1b" not in output
    assert (tmp_path / "out/leaves/ptq/model.tflite").exists()


def test_a_failed_run_ends_with_1_and_its_reason(tmp_path: Path, start_command: Callable[..., subprocess.Popen[str]]):
    process = start_command("failing")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: stage 'qat' failed: the learning rate is too high")
    assert "Traceback" not in errors + output
    assert not (tmp_path / "mlflow.db").exists(), "a failure before anything was logged makes no database"
