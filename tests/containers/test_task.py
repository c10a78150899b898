"""A user's image, built by the Dockerfile's second target."""

import shutil
from pathlib import Path

import pytest
from kfp import dsl

from collabopt import components
from collabopt.components.engine.datasets.store import StoredDataset

ROOT = Path(__file__).parents[2]
TASK_MODULE = ROOT / "tests" / "components" / "engine" / "training" / "regression_task.py"
TASK = "regression_task:TASK"
LOAD = f"from collabopt.components.engine.training.task import load_task; print(load_task('{TASK}').metric.name)"


@pytest.fixture(scope="module")
def derive(docker, image, tmp_path_factory):
    """Builds an image with the task, and with what a requirements file asks for."""

    def build(tag, requirements):
        context = tmp_path_factory.mktemp("task")
        shutil.copy(TASK_MODULE, context)
        (context / "requirements.txt").write_text(requirements)
        built = ["--build-arg", f"COLLABOPT={image}", "--file", ROOT / "Dockerfile", "--target", "task"]
        return docker("build", "--network", "host", "--tag", tag, *built, context)

    return build


@pytest.fixture(scope="module")
def task_image(derive, image):
    built = derive(f"{image}-task", "sortedcontainers\n")
    assert built.returncode == 0, built.stderr
    return f"{image}-task"


def test_the_task_and_what_it_requires_can_be_imported(in_container, task_image):
    assert in_container("python", "-c", LOAD, image=task_image).strip() == "mean_absolute_error"
    in_container("python", "-c", "import sortedcontainers", image=task_image)


def test_it_is_as_closed_as_the_image_below_it(docker, in_container, task_image):
    assert docker("image", "inspect", "--format", "{{.Config.User}}", task_image).stdout.strip() == "1001:0"
    assert in_container(
        "sh", "-c", "command -v pip uv; ls -A /tmp /root/.cache 2>/dev/null; true", image=task_image
    ).split() == ["/tmp:"]


def test_the_image_itself_knows_no_such_task(docker, image):
    done = docker("run", "--rm", "--network", "none", image, "python", "-c", LOAD)
    assert done.returncode == 1
    assert "regression_task" in done.stderr


def test_a_stage_runs_with_the_task(confined_runner, task_image):
    component = dsl.component(components.load_dataset.python_func, base_image=task_image, install_kfp_package=False)
    confined_runner()
    task = component(source="task", task=TASK)
    dataset = StoredDataset(Path(task.outputs["dataset"].path))
    assert dataset.spec.sizes["test"] == 32


def test_requirements_that_would_change_the_image_are_refused(derive, image):
    built = derive(f"{image}-refused", "numpy<2\n")
    assert built.returncode != 0
    assert "numpy" in built.stderr
