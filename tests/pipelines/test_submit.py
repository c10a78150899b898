import ipaddress
import os
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from google.protobuf import json_format
from kfp.client import Client
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec
from kfp_server_api import V2beta1PipelineTaskDetail, V2beta1RunDetails

from collabopt.pipelines import kubeflow as connection
from collabopt.pipelines import submission
from tests.pipelines.kubeflow_server import Raw, Refused, Request, Server, kubeflow_server
from tests.pipelines.refusal import refused

Command = Callable[..., tuple[int, str, str]]
EXAMPLE = ["submit", "--example", "digits", "--pipeline", "quantization"]
LOGIN_PAGE = Raw(200, "text/html; charset=utf-8", "<html><title>Log in to Your Account</title></html>")


def test_a_run_is_asked_for_with_everything_that_was_said(collabopt: Command, kubeflow: Server, tmp_path: Path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("when_none_qualifies: fail\n")
    code, output, errors = collabopt(
        *("submit", "--pipeline", "pruning", "--model", "gs://bucket/model.keras", "--data", "gs://bucket/data.npz"),
        *("--task", "my_package.tasks:TASK", "--policy", str(policy), "--name", "wake-word"),
        *("--releases", "gs://bucket/releases", "--param", "sparsity=0.75", "--param", "epochs=5"),
        *("--set", "pruned.schedule=polynomial", "--set", "pqat.learning_rate=5e-5"),
        *("--experiment", "nightly", "--run-name", "try 1", "--service-account", "pipeline-runner"),
        *("--mlflow-experiment", "wake words"),
    )
    assert (code, errors) == (0, "")
    assert [(request.method, request.path, set(request.query)) for request in kubeflow.requests] == [
        ("GET", "/apis/v2beta1/healthz", set()),
        ("GET", "/apis/v2beta1/experiments", {"filter"}),
        ("POST", "/apis/v2beta1/experiments", set()),
        ("POST", "/apis/v2beta1/runs", set()),
    ]
    assert kubeflow.body_of("create_experiment") == {"display_name": "nightly"}
    body = kubeflow.body_of("create_run")
    specification = body.pop("pipeline_spec")
    assert body == {
        "display_name": "try 1",
        "experiment_id": kubeflow.experiments[0].experiment_id,
        "runtime_config": {
            "parameters": {
                "model": "gs://bucket/model.keras",
                "data": "gs://bucket/data.npz",
                "task": "my_package.tasks:TASK",
                "policy": "when_none_qualifies: fail\n",
                "model_name": "wake-word",
                "releases": "gs://bucket/releases",
                "sparsity": 0.75,
                "epochs": 5,
                "settings": {"pruned": {"schedule": "polynomial"}, "pqat": {"learning_rate": 5e-5}},
            }
        },
        "service_account": "pipeline-runner",
        "plugins_input": {"mlflow": {"experiment_name": "wake words"}},
    }
    assert specification["pipeline_spec"]["pipelineInfo"]["name"] == "pruning"
    assert _environment(specification, "MLFLOW_EXPERIMENT_NAME") == {"wake words"}
    assert output.splitlines() == [
        f"run:  {kubeflow.runs[0].run_id}",
        f"link: {kubeflow.url}/#/runs/details/{kubeflow.runs[0].run_id}",
    ]


def test_what_is_sent_is_what_kfps_own_client_would_send(collabopt: Command, kubeflow: Server, tmp_path: Path):
    assert collabopt("submit", "--example", "digits", "--pipeline", "staged")[0] == 0
    assert collabopt("compile", "staged", "-o", "compiled.yaml")[0] == 0
    Client(kubeflow.url, namespace="any").create_run_from_pipeline_package(
        str(tmp_path / "compiled.yaml"), experiment_id=kubeflow.experiments[0].experiment_id
    )
    ours, theirs = (run.pipeline_spec for run in kubeflow.runs)
    for part, message in (("pipeline_spec", PipelineSpec), ("platform_spec", PlatformSpec)):
        assert json_format.ParseDict(ours[part], message()) == json_format.ParseDict(theirs[part], message())
    assert "deployment-gate" in _every_task(ours["pipeline_spec"])


def test_the_clusters_settings_are_compiled_in_and_name_the_mlflow_experiment(
    collabopt: Command, kubeflow: Server, tmp_path: Path
):
    settings = tmp_path / "cluster.yaml"
    settings.write_text("image: registry.example.com/collabopt:1\nmlflow: {experiment_name: of the cluster}\n")
    overrides = ["--cluster-set", "image=registry.example.com/collabopt:2"]
    assert collabopt(*EXAMPLE, "--cluster", str(settings), *overrides)[0] == 0
    body = kubeflow.body_of("create_run")
    assert _environment(body["pipeline_spec"], "MLFLOW_EXPERIMENT_NAME") == {"of the cluster"}
    assert body["plugins_input"] == {"mlflow": {"experiment_name": "of the cluster"}}
    assert {container["image"] for container in _containers(body["pipeline_spec"])} == {
        "registry.example.com/collabopt:2"
    }
    assert collabopt(*EXAMPLE, "--cluster", str(settings), "--mlflow-experiment", "mine")[0] == 0
    assert kubeflow.runs[-1].plugins_input == {"mlflow": {"experiment_name": "mine"}}
    assert _environment(kubeflow.runs[-1].pipeline_spec, "MLFLOW_EXPERIMENT_NAME") == {"mine"}


def _containers(specification: dict[str, Any]) -> list[dict[str, Any]]:
    executors = specification["pipeline_spec"]["deploymentSpec"]["executors"]
    return [executor["container"] for executor in executors.values()]


def _environment(specification: dict[str, Any], name: str) -> set[str | None]:
    """The values that a variable has in the containers of a pipeline."""
    values = [{entry["name"]: entry["value"] for entry in c.get("env", ())} for c in _containers(specification)]
    return {value.get(name) for value in values}


def test_a_search_is_sent_with_its_space_and_its_budget(collabopt: Command, kubeflow: Server, tmp_path: Path):
    (tmp_path / "space.yaml").write_text("clusters: [4, 8]\n")
    search = ["submit", "--example", "digits", "--pipeline", "search", "--space", str(tmp_path / "space.yaml")]
    assert collabopt(*search, "--param", "budget_trials=5")[0] == 0
    parameters = kubeflow.body_of("create_run")["runtime_config"]["parameters"]
    assert (parameters["space"], parameters["budget_trials"]) == ("clusters: [4, 8]\n", 5)


def test_what_an_example_changes_is_searched_over_all_the_same(collabopt: Command, kubeflow: Server):
    assert collabopt("submit", "--example", "fashion-mnist", "--pipeline", "search")[0] == 0
    parameters = kubeflow.body_of("create_run")["runtime_config"]["parameters"]
    assert parameters["epochs"] == 2
    assert yaml.safe_load(parameters["space"])["epochs"] == [2, 6, 12]


def test_what_was_given_a_value_is_not_searched_over(collabopt: Command, kubeflow: Server):
    search = ["submit", "--example", "digits", "--pipeline", "search"]
    assert collabopt(*search, "--param", "sparsity=0.7")[0] == 0
    parameters = kubeflow.body_of("create_run")["runtime_config"]["parameters"]
    assert parameters["sparsity"] == 0.7
    assert set(yaml.safe_load(parameters["space"])) == {"clusters", "epochs"}


@pytest.mark.parametrize(
    ("space", "options", "expected"),
    [
        (
            "clusters: [4, 8]",
            ["--pipeline", "search", "--param", "clusters=4"],
            "'clusters' is an axis and has a value already",
        ),
        ("clusters: [4]", ["--pipeline", "search", "--param", "budget_trials=500"], "allow 13 at most"),
        (
            "clusters: [4]",
            ["--pipeline", "search", "--param", "budget_trials=12", "--cluster-set", "search.waves=2"],
            "allow 7 at most",
        ),
        ("clusters: [4, 1]", ["--pipeline", "search"], "clusters=1"),
        ("cluster: [4, 8]", ["--pipeline", "search"], "did you mean 'clusters'"),
        ("clusters: [4]", ["--pipeline", "search", "--param", "budget_trials=0"], "--param budget_trials=0"),
        ("clusters: [4]", ["--pipeline", "search", "--param", "budget_epochs=5"], "too small for one trial"),
        ("clusters: [4]", ["--pipeline", "search", "--param", "budget_minutes=-1"], "--param budget_minutes=-1"),
        ("clusters: [4]", [], "'exhaustive' takes no space"),
    ],
)
def test_a_search_that_cannot_be_run_is_not_sent(
    collabopt: Command, kubeflow: Server, tmp_path: Path, space: str, options: list[str], expected: str
):
    (tmp_path / "space.yaml").write_text(space)
    refused(collabopt("submit", "--example", "digits", "--space", str(tmp_path / "space.yaml"), *options), expected)
    assert not kubeflow.runs


def test_a_search_with_room_for_fewer_trials_makes_fewer(collabopt: Command, kubeflow: Server):
    narrow = ["--cluster-set", "search.waves=2", "--cluster-set", "search.trials_at_once=2"]
    assert collabopt("submit", "--example", "digits", "--pipeline", "search", *narrow)[0] == 0
    assert kubeflow.body_of("create_run")["runtime_config"]["parameters"]["budget_trials"] == 5


def test_the_defaults_are_those_of_the_pipeline(collabopt: Command, kubeflow: Server):
    assert collabopt(*EXAMPLE)[0] == 0
    body = kubeflow.body_of("create_run")
    assert body["runtime_config"]["parameters"] == {
        "model": "example://digits",
        "data": "example://digits",
        "settings": {},
    }
    assert body.keys() == {"display_name", "experiment_id", "pipeline_spec", "runtime_config"}
    assert body["display_name"].startswith("collabopt quantization ")
    assert kubeflow.experiments[0].display_name == "collabopt"


def test_an_experiment_that_exists_is_used(collabopt: Command, kubeflow: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME", "ours")
    assert collabopt(*EXAMPLE)[0] == 0
    assert collabopt(*EXAMPLE)[0] == 0
    assert [experiment.display_name for experiment in kubeflow.experiments] == ["ours"]
    assert {run.experiment_id for run in kubeflow.runs} == {kubeflow.experiments[0].experiment_id}


@pytest.mark.parametrize("pipeline", ["quantization", "staged"])
def test_without_cache_no_task_may_use_it(collabopt: Command, kubeflow: Server, pipeline: str):
    assert collabopt("submit", "--example", "digits", "--pipeline", pipeline, "--no-cache")[0] == 0
    sent = kubeflow.body_of("create_run")["pipeline_spec"]["pipeline_spec"]
    json_format.ParseDict(sent, PipelineSpec())
    assert {task["cachingOptions"]["enableCache"] for task in _every_task(sent).values()} == {False}
    assert len(_every_task(sent)) > 5


def _every_task(specification: dict[str, Any]) -> dict[str, Any]:
    graphs = [specification["root"], *specification["components"].values()]
    return {name: task for graph in graphs for name, task in graph.get("dag", {}).get("tasks", {}).items()}


def test_credentials_come_from_the_environment_and_are_never_shown(
    collabopt: Command, kubeflow: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path.parent / f"{tmp_path.name}.token"
    file.write_text("token-of-the-pod")
    kubeflow.token = "token-of-the-pod"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    assert collabopt(*EXAMPLE)[0] == 0

    kubeflow.token = "another-token"
    refused(collabopt(*EXAMPLE), "does not know who you are", "HTTP 401", str(file), "KFP_EXISTING_TOKEN")
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "another-token")
    monkeypatch.setenv("KFP_COOKIES", "authservice_session=cookie-of-mine")
    assert collabopt(*EXAMPLE)[0] == 0
    assert kubeflow.requests[-1].headers["cookie"] == "authservice_session=cookie-of-mine"

    kubeflow.token = "a-third-one"
    result = collabopt(*EXAMPLE)
    refused(result, "does not know who you are", "with KFP_EXISTING_TOKEN and KFP_COOKIES", "got {")
    assert "another-token" not in result[2] and "cookie-of-mine" not in result[2]

    monkeypatch.delenv("KFP_EXISTING_TOKEN")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", "nowhere")
    refused(collabopt(*EXAMPLE), "there is no token file", "KF_PIPELINES_SA_TOKEN_PATH=nowhere")


@pytest.mark.parametrize("variable", ["KFP_EXISTING_TOKEN", "KFP_COOKIES"])
@pytest.mark.parametrize("secret", ["name=s3cret\nX-Other: 1", "name=s3cr\u0119t"], ids=["line break", "beyond ascii"])
def test_credentials_that_no_request_can_carry_are_refused_and_not_shown(
    collabopt: Command, kubeflow: Server, monkeypatch: pytest.MonkeyPatch, variable: str, secret: str
):
    monkeypatch.setenv(variable, secret)
    result = collabopt(*EXAMPLE)
    refused(result, "these are no credentials", variable)
    assert "s3cr" not in result[2]
    assert kubeflow.requests == []


def test_the_line_break_at_the_end_of_a_secret_is_left_out(
    collabopt: Command, kubeflow: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KFP_EXISTING_TOKEN", "from-a-file\n")
    kubeflow.token = "from-a-file"
    assert collabopt(*EXAMPLE)[0] == 0


def test_a_token_file_that_cannot_be_used_is_named(
    collabopt: Command, kubeflow: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path.parent / f"{tmp_path.name}.token"
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    file.write_bytes(b"\xff\xfe")
    refused(collabopt(*EXAMPLE), "cannot be read", "not text in UTF-8", str(file))
    file.write_text("s3cret\ns3cret")
    result = collabopt(*EXAMPLE)
    refused(result, "these are no credentials", str(file))
    assert "s3cret" not in result[2]


def test_no_credential_is_shown_by_way_of_the_servers_words(
    collabopt: Command, kubeflow: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """One of several cookies, and a token that was read again meanwhile."""
    file = tmp_path.parent / f"{tmp_path.name}.token"
    file.write_text("the-token-before")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))
    monkeypatch.setenv("KFP_COOKIES", "lang=en; oauth2_proxy_kubeflow=the-session")

    def refuse(request: Request) -> None:
        if request.operation.endswith("create_run"):
            raise Refused(401, f"no session the-session for {request.headers['authorization']}, once again")
        file.write_text("the-token-after")

    kubeflow.before = refuse
    result = collabopt(*EXAMPLE)
    refused(result, "no session *** for Bearer ***, once again")


def test_where_kubeflow_has_several_users_the_namespace_is_sent(collabopt: Command, kubeflow: Server):
    kubeflow.multi_user = True
    assert collabopt(*EXAMPLE, "--namespace", "team-a")[0] == 0
    assert kubeflow.requests[1].query["namespace"] == "team-a"
    assert kubeflow.body_of("create_experiment")["namespace"] == "team-a"
    refused(collabopt(*EXAMPLE), "in whose namespace?", "--namespace")
    refused(collabopt(*EXAMPLE, "-n", "team-b"), "no right to", "namespace 'team-b'", "HTTP 403", "kubeflow-edit")
    assert len(kubeflow.runs) == len(kubeflow.experiments) == 1


def test_where_kubeflow_has_one_user_a_namespace_is_refused(collabopt: Command, kubeflow: Server):
    refused(collabopt(*EXAMPLE, "-n", "team-a"), "single-user mode", "'team-a'", "leave --namespace out")
    assert kubeflow.operations == ["get_healthz"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--model", "m.keras", "--data", "gs://b/d.npz"],
            ["--model m.keras", "gs:// only", "--model gs://bucket/path"],
        ),
        (["--model", "gs://b/m", "--data", "/data/d.npz"], ["--data /data/d.npz", "gs:// only"]),
        (["--model", "gs://bucket", "--data", "task"], ["--model gs://bucket", "lacks a bucket or a path"]),
        (["--example", "digits", "--releases", "releases"], ["--releases releases", "gs:// only"]),
        (["--example", "digits", "--pipeline", "prunin"], ["unknown pipeline", "did you mean 'pruning'"]),
        (["--example", "digits", "--param", "sparsity=2"], ["'sparsity' is out of range"]),
        (["--example", "digits", "--pipeline", "quantization", "--param", "sparsity=NaN"], ["'NaN' is not finite"]),
        (["--example", "digits", "--set", "prune.x=1"], ["unknown stage 'prune'", "did you mean 'pruned'"]),
        (["--example", "digits", "--task", "task"], ["does not read as a task"]),
        (["--example", "digits", "--policy", "no.yaml"], ["no such policy file"]),
        (["--example", "digits", "--name", "a/b"], ["not a legal name"]),
        (["--example", "digits", "--cluster", "no.yaml"], ["the cluster configuration cannot be read", "no.yaml"]),
        (["--example", "digits", "--cluster-set", "imgae=x"], ["unknown key", "imgae"]),
        (["--example", "digits", "--ca-cert", "no.pem"], ["not a file of certificates", "no.pem"]),
        (["--example", "digits", "--host", "kubeflow.example.com"], ["not the address of a server", "https://HOST"]),
        (["--example", "digits", "--host", "http://[::1"], ["not the address of a server", "http://[::1"]),
        (["--example", "digits", "--host", "https://me:hunter2@kubeflow"], ["must not hold credentials"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_can_be_known_is_said_before_anything_is_sent(
    collabopt: Command, kubeflow: Server, options: list[str], expected: list[str]
):
    result = collabopt("submit", *options)
    refused(result, *expected)
    assert "hunter2" not in result[2]
    assert kubeflow.requests == []
    assert os.listdir() == []


def test_without_an_address_it_says_how_to_get_one(collabopt: Command, monkeypatch: pytest.MonkeyPatch):
    for variable in ("KF_PIPELINES_ENDPOINT", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(variable, raising=False)
    refused(collabopt(*EXAMPLE), "address of Kubeflow Pipelines is not known", "--host URL", "port-forward")


def test_in_a_pod_the_server_of_its_cluster_is_asked(collabopt: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KF_PIPELINES_ENDPOINT", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    refused(collabopt(*EXAMPLE), "cannot be reached", "http://ml-pipeline.kubeflow.svc.cluster.local:8888")


def test_a_certificate_must_be_trusted(collabopt: Command, tmp_path: Path):
    authority = tmp_path / "authority.pem"
    with kubeflow_server(tls=_certificate(authority)) as server:
        refused(collabopt(*EXAMPLE, "--host", server.url), "certificate is not trusted", "--ca-cert FILE", server.url)
        assert collabopt(*EXAMPLE, "--host", server.url, "--ca-cert", str(authority))[0] == 0
        assert len(server.runs) == 1


def _certificate(authority: Path) -> ssl.SSLContext:
    """A certificate for 127.0.0.1 that signs itself, written to a file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    begin = datetime.now(UTC) - timedelta(hours=1)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=1))
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    authority.write_bytes(signed.public_bytes(Encoding.PEM))
    both = authority.with_suffix(".both")
    both.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + signed.public_bytes(Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(both)
    return context


def test_a_server_that_cannot_be_reached_is_named(collabopt: Command):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound, but it does not listen
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        refused(collabopt(*EXAMPLE, "--host", url), "cannot be reached", url, "port-forward")
    refused(collabopt(*EXAMPLE, "--host", "http://no-such-host.invalid"), "cannot be reached", "no-such-host.invalid")


def test_a_server_that_does_not_answer_is_given_up(collabopt: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        refused(collabopt(*EXAMPLE, "--host", url), "no answer within 0.1 seconds", url)
        listener.setblocking(False)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):  # it has not been tried again
            listener.accept()


@pytest.mark.parametrize(
    "page",
    [
        LOGIN_PAGE,
        Raw(302, "text/html", "", location="/login"),
        Raw(404, "text/html", "<html>nothing here</html>"),
        Raw(200, "text/html; charset=latin-1", "<html>caf\xe9</html>"),
    ],
    ids=["200", "302", "404", "latin-1"],
)
def test_a_web_page_is_no_kubeflow(collabopt: Command, kubeflow: Server, page: Raw):
    kubeflow.instead["get_healthz"] = page
    kubeflow.instead[""] = LOGIN_PAGE
    refused(collabopt(*EXAMPLE), "a web page, not Kubeflow Pipelines", "login page", kubeflow.url, "no credentials")
    assert not kubeflow.runs


def test_an_address_copied_from_the_browser_will_do(collabopt: Command, kubeflow: Server):
    assert collabopt(*EXAMPLE, "--host", f"{kubeflow.url}/#/runs")[0] == 0


def test_the_servers_own_words_are_shown(collabopt: Command, kubeflow: Server):
    said = '{"error": "x", "code": 3, "message": "Failed to create a run: unknown parameter sparsitty", "details": []}'
    kubeflow.instead["create_run"] = Raw(400, "application/json", said)
    refused(collabopt(*EXAMPLE), "cannot create the run", "unknown parameter sparsitty", "HTTP 400")
    kubeflow.instead["create_run"] = Raw(503, "text/plain", "upstream connect error")
    refused(collabopt(*EXAMPLE), "cannot create the run", "HTTP 503")
    kubeflow.instead["create_run"] = Raw(404, "application/json", '{"message": "no such route"}')
    refused(collabopt(*EXAMPLE), "cannot create the run", "no such route", "HTTP 404")


def test_wait_returns_when_the_run_has_succeeded(collabopt: Command, kubeflow: Server):
    kubeflow.states = ["PENDING", "RUNNING", "SUCCEEDED"]
    code, output, errors = collabopt(*EXAMPLE, "--wait")
    assert (code, errors) == (0, "")
    assert output.splitlines()[-1] == "the run has succeeded"
    assert kubeflow.operations.count("get_run") == 3


@pytest.mark.parametrize("failures", [3, 1000])
def test_wait_outlives_a_server_that_is_away_for_a_while(
    collabopt: Command, kubeflow: Server, monkeypatch: pytest.MonkeyPatch, failures: int
):
    monkeypatch.setattr(submission, "FIRST_WAIT_SECONDS", 0.0)
    left = [None] * failures

    def away(request: Request) -> None:
        if request.operation.endswith("get_run") and left:
            left.pop()
            raise Refused(500, "the database is away")

    kubeflow.before = away
    code, output, errors = collabopt(*EXAMPLE, "--wait")
    if failures < 10:
        assert (code, errors, output.splitlines()[-1]) == (0, "", "the run has succeeded")
    else:
        assert code == 1
        assert "cannot see how the run is getting on: the server fails: the database is away" in errors


@pytest.mark.parametrize("state", ["FAILED", "CANCELED", "SKIPPED"])
def test_wait_fails_when_the_run_does_not_succeed(collabopt: Command, kubeflow: Server, state: str):
    kubeflow.states = [state]
    code, output, errors = collabopt(*EXAMPLE, "--wait")
    assert code == 1
    assert output.startswith("run: ")
    assert f"the run ended as {state.lower()}" in errors
    assert f"/#/runs/details/{kubeflow.runs[0].run_id}" in errors


def test_wait_names_the_stages_that_failed(collabopt: Command, kubeflow: Server):
    def fail(request: Request) -> None:
        if request.operation.endswith("get_run"):
            tasks = [("qat", "SUCCEEDED"), ("pqat", "FAILED"), ("gate", "SKIPPED")]
            details = [V2beta1PipelineTaskDetail(display_name=name, state=state) for name, state in tasks]
            kubeflow.runs[0].run_details = V2beta1RunDetails(task_details=details)

    kubeflow.before, kubeflow.states = fail, ["FAILED"]
    assert "error: the run ended as failed; failed: pqat\n" in collabopt(*EXAMPLE, "--wait")[2]


def test_the_name_of_a_run_tells_when_it_was_asked_for(collabopt: Command, kubeflow: Server):
    assert collabopt(*EXAMPLE, "--name", "wake-word")[0] == 0
    model, pipeline, *time = kubeflow.runs[0].display_name.split(" ")
    assert (model, pipeline) == ("wake-word", "quantization")
    datetime.fromisoformat(" ".join(time))
