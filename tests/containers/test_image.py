"""What is in the image, and what is not."""

import importlib.metadata
import json
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# Prints, one a line, the modules that would be compiled again at every start.
UNCOMPILED = """
import importlib.util, sysconfig
from pathlib import Path
for path in Path(sysconfig.get_path("purelib")).rglob("*.py"):
    if not Path(importlib.util.cache_from_source(path)).exists():
        print(path)
"""


def test_the_dockerfile_names_the_versions_that_the_project_has():
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    version = importlib.metadata.version("collabopt")
    assert f"ARG VERSION={version}\n" in dockerfile
    assert f"ARG COLLABOPT=ghcr.io/collabopt/collabopt:{version}\n" in dockerfile
    (uv,) = re.findall(r"^UV_VERSION := (.+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    assert f'"uv=={uv}"' in dockerfile


@pytest.fixture(scope="module")
def inspected(docker, image):
    (attributes,) = json.loads(docker("image", "inspect", image).stdout)
    return attributes


def test_the_image_names_no_entrypoint_and_a_numeric_user_other_than_root(inspected):
    config = inspected["Config"]
    assert config["Entrypoint"] is None  # kfp.local would not replace it, Kubernetes does
    assert config["User"] == "1001:0"


def test_labels_say_what_it_is(inspected, in_container):
    prefix = "org.opencontainers.image."
    labels = {key.removeprefix(prefix): value for key, value in inspected["Config"]["Labels"].items()}
    assert labels["version"] == importlib.metadata.version("collabopt")
    assert in_container("collabopt", "--version").split() == ["collabopt", labels["version"]]
    assert labels["title"] == "collabopt"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["base.name"].startswith("python:3.11-slim")
    assert all(labels[name] for name in ("description", "source", "revision"))


def test_nothing_can_install_at_run_time(in_container):
    assert in_container("sh", "-c", "command -v pip pip3 uv; python3 -m pip --version; true") == ""


def test_every_module_is_compiled(in_container):
    assert in_container("python", "-c", UNCOMPILED) == ""


def test_neither_caches_nor_the_sources_of_the_build_are_left(in_container):
    left = ["/root/.cache", "/home/collabopt/.cache", "/src", "/uv", "/requirements.txt"]
    found = in_container("sh", "-c", f"ls -d {' '.join(left)} 2>/dev/null; ls -A /tmp /home/collabopt; true")
    assert found.split() == ["/home/collabopt:", "/tmp:"]


def test_what_it_runs_belongs_to_root_and_can_be_changed_by_nobody_else(in_container):
    assert (
        in_container("find", "/opt/collabopt", "(", "!", "-user", "0", "-o", "-perm", "/022", ")", "!", "-type", "l")
        == ""
    )


def test_history_and_environment_hold_no_secrets(docker, inspected, image):
    text = docker("history", "--no-trunc", image).stdout + "\n".join(inspected["Config"]["Env"])
    for word in ("password", "token", "secret", "credential", "index-url"):
        assert word not in text.lower(), word


def test_any_user_of_group_0_can_write_its_home(docker, image):
    """As OpenShift runs it."""
    done = docker(
        "run", "--rm", "--network", "none", "--user", "1000660000:0", image, "sh", "-c", 'touch "$HOME/file" && id -u'
    )
    assert done.stdout.strip() == "1000660000", done.stderr


def test_pipelines_compile_inside(in_container):
    compiled = in_container("sh", "-c", "collabopt compile exhaustive -o /tmp/tree.yaml >&2 && cat /tmp/tree.yaml")
    assert "name: exhaustive" in compiled


@pytest.mark.slow
def test_the_command_runs_without_network_as_a_user_of_the_clusters_choice(in_container):
    options = ("--network", "none", "--user", "1000660000:0")
    arguments = ["--example", "digits", "--pipeline", "quantization", "--param", "epochs=1", "--param", "qat_epochs=1"]
    assert "winner: " in in_container("collabopt", "run", *arguments, options=options)
