"""A stage that fails, fails the run."""

import os
import time

import pytest
from kfp import dsl

from collabopt.components.image import IMAGE
from collabopt.pipelines import load_pipeline

ENDINGS = {"exit 3": 3, "exec tail /dev/zero": 137}  # the latter needs all memory that there is


@dsl.container_component
def shell(script: str):
    return dsl.ContainerSpec(image=IMAGE, command=["sh", "-c"], args=[script])


def test_a_stage_that_cannot_do_its_work_ends_the_pipeline(confined_runner, containers, mlflow_server, capfd):
    root = confined_runner({"MLFLOW_TRACKING_URI": mlflow_server, "COLLABOPT_PIPELINE_RUN_ID": "fails"})
    data = root / "data.npz"
    data.write_text("not an archive")
    with pytest.raises(RuntimeError, match="load-dataset"):
        load_pipeline("quantization")(data=str(data), model_name="never")
    assert [container.exit_code for container in containers] == [0, 1]
    assert f"where: {data}" in capfd.readouterr().out
    assert not list(root.rglob("decision.json"))

    from mlflow import MlflowClient

    client = MlflowClient(mlflow_server)
    experiment = client.get_experiment_by_name("collabopt").experiment_id
    (run,) = client.search_runs([experiment], "tags.`collabopt.pipeline_run_id` = 'fails'")
    assert (run.info.run_name, run.info.status) == ("dataset", "FAILED")
    assert client.search_model_versions("name='never'") == []


@pytest.mark.parametrize("script", ENDINGS)
def test_a_container_that_fails_at_once_fails_its_task(confined_runner, containers, script):
    confined_runner(mem_limit="32m")
    with pytest.raises(RuntimeError, match="FAILURE"):
        shell(script=script)
    assert [container.exit_code for container in containers] == [ENDINGS[script]]


def test_kfp_alone_takes_a_failed_container_for_a_success(image, tmp_path, monkeypatch):
    """Why there is `containers`: when this fails, kubeflow/pipelines issue #13332 is mended and that can go."""
    from docker.errors import NotFound
    from docker.models.containers import ContainerCollection
    from kfp import local

    run = ContainerCollection.run

    def run_and_come_late(self, *arguments, **options):
        container = run(self, *arguments, **options)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.get(container.id)
            except NotFound:
                break
            time.sleep(0.05)
        return container

    monkeypatch.setattr(ContainerCollection, "run", run_and_come_late)
    local.init(local.DockerRunner(network_mode="none"), pipeline_root=str(tmp_path))
    shell(script="exit 3")


def test_what_confines_a_stage_is_seen_from_inside(confined_runner):
    @dsl.component(base_image=IMAGE, install_kfp_package=False)
    def look_around() -> dict:  # type: ignore[empty-body]
        import os
        from pathlib import Path

        def can_write(directory: str) -> bool:
            try:
                Path(directory, "probe").touch()
            except OSError:
                return False
            return True

        status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
        return {
            "user": f"{os.getuid()}:{os.getgid()}",
            "capabilities": status["CapEff"],
            "no new privileges": status["NoNewPrivs"],
            "writable": [path for path in ("/", "/opt/collabopt", os.environ["HOME"], "/tmp") if can_write(path)],
        }

    confined_runner()
    assert look_around().output == {
        "user": "1001:0",
        "capabilities": "0" * 16,
        "no new privileges": "1",
        "writable": ["/tmp"],
    }
    assert os.environ["COLLABOPT_IMAGE"] == IMAGE
