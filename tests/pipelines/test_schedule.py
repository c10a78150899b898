import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from kfp_server_api import (
    V2beta1CronSchedule,
    V2beta1PeriodicSchedule,
    V2beta1PipelineVersionReference,
    V2beta1RecurringRun,
    V2beta1Trigger,
)

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.kubeflow import connect
from collabopt.pipelines.schedules import Wanted, place_schedule
from collabopt.pipelines.submission import Submission
from collabopt.pipelines.triggers import Trigger
from tests.pipelines.kubeflow_server import Request, Server
from tests.pipelines.refusal import refused

Command = Callable[..., tuple[int, str, str]]
NIGHTLY = [
    *("schedule", "--cron", "0 3 * * *", "--schedule-name", "nightly"),
    *("--example", "digits", "--pipeline", "quantization"),
]
REPLACEMENT = [*NIGHTLY, "--param", "seed=1"]


def nightly(server: Server) -> V2beta1RecurringRun:
    """The only schedule, which must have that name."""
    (schedule,) = server.recurring_runs
    assert schedule.display_name == "nightly"
    return schedule


def test_a_schedule_is_asked_for_with_everything_that_was_said(collabopt: Command, kubeflow: Server):
    code, output, errors = collabopt(
        *(*NIGHTLY, "--start", "2090-01-01", "--end", "2091-01-01T12:00+01:00", "--max-concurrency", "3", "--catch-up"),
        *("--param", "seed=7", "--experiment", "nights", "--service-account", "pipeline-runner"),
        *("--mlflow-experiment", "digits at night", "--name", "digits"),
    )
    assert (code, errors) == (0, "")
    assert [(request.method, request.path, dict(request.query)) for request in kubeflow.requests[-2:]] == [
        ("GET", "/apis/v2beta1/recurringruns", {"page_size": "100"}),
        ("POST", f"/apis/v2beta1/recurringruns/{nightly(kubeflow).recurring_run_id}:enable", {}),
    ]
    body = kubeflow.body_of("create_recurring_run")
    assert body.pop("pipeline_spec")["pipeline_spec"]["pipelineInfo"]["name"] == "quantization"
    assert body.pop("description").startswith("collabopt, request ")
    assert body == {
        "display_name": "nightly",
        "experiment_id": kubeflow.experiments[0].experiment_id,
        "runtime_config": {
            "parameters": {
                "model": "example://digits",
                "data": "example://digits",
                "model_name": "digits",
                "seed": 7,
                "settings": {},
            }
        },
        "service_account": "pipeline-runner",
        "plugins_input": {"mlflow": {"experiment_name": "digits at night"}},
        "trigger": {
            "cron_schedule": {
                "cron": "0 0 3 * * *",
                "start_time": "2090-01-01T00:00:00+00:00",
                "end_time": "2091-01-01T11:00:00+00:00",
            }
        },
        "max_concurrency": "3",
        "no_catchup": False,
        "mode": "DISABLE",
    }
    assert nightly(kubeflow).mode == "ENABLE"
    identifier = nightly(kubeflow).recurring_run_id
    assert output.splitlines() == [
        f"schedule 'nightly' ({identifier}) is new",
        "when: At 03:00 every day, cron '0 0 3 * * *'",
        "next: 2090-01-01 03:00, 2090-01-02 03:00, 2090-01-03 03:00 (UTC, if that is the cron time zone of the server)",
        f"link: {kubeflow.url}/#/recurringrun/details/{identifier}",
    ]


def test_an_interval(collabopt: Command, kubeflow: Server):
    code, output, _ = collabopt("schedule", "--every", "6h", "--example", "digits", "--name", "wake-word")
    assert code == 0
    body = kubeflow.body_of("create_recurring_run")
    assert body["trigger"] == {"periodic_schedule": {"interval_second": "21600"}}
    assert (body["display_name"], body["max_concurrency"], body["no_catchup"]) == ("wake-word-exhaustive", "1", True)
    assert "service_account" not in body and "plugins_input" not in body
    assert "when: every 6h\n" in output


def test_the_same_again_changes_nothing(collabopt: Command, kubeflow: Server):
    assert collabopt(*NIGHTLY)[0] == 0
    before = nightly(kubeflow).recurring_run_id
    kubeflow.requests.clear()
    code, output, _ = collabopt(*NIGHTLY)
    assert code == 0
    assert kubeflow.changes() == []
    assert output.startswith(f"schedule 'nightly' ({before}) is as it was")
    assert collabopt("schedule", "pause", "nightly")[0] == 0
    assert collabopt(*NIGHTLY)[0] == 0
    assert (nightly(kubeflow).recurring_run_id, nightly(kubeflow).mode) == (before, "ENABLE")
    assert collabopt(*NIGHTLY, "--paused")[0] == 0
    assert (nightly(kubeflow).recurring_run_id, nightly(kubeflow).mode) == (before, "DISABLE")


@pytest.mark.parametrize(
    "change",
    [
        ["--param", "seed=1"],
        ["--cron", "0 4 * * *"],
        ["--max-concurrency", "2"],
        ["--catch-up"],
        ["--service-account", "other"],
        ["--mlflow-experiment", "other"],
        ["--experiment", "other"],
        ["--no-cache"],
        ["--pipeline", "pruning"],
        ["--end", "2099-01-01"],
    ],
    ids=" ".join,
)
def test_whatever_differs_replaces_the_schedule(collabopt: Command, kubeflow: Server, change: list[str]):
    assert collabopt(*NIGHTLY)[0] == 0
    before = nightly(kubeflow).recurring_run_id
    code, output, _ = collabopt(*NIGHTLY, *change)
    assert code == 0
    assert f"replaces {before}" in output
    assert nightly(kubeflow).recurring_run_id != before
    assert nightly(kubeflow).mode == "ENABLE"


def test_replacing_never_runs_two_and_always_leaves_one(collabopt: Command, kubeflow: Server):
    assert collabopt(*NIGHTLY)[0] == 0
    kubeflow.requests.clear()
    assert collabopt(*REPLACEMENT)[0] == 0
    assert kubeflow.changes() == ["create_recurring_run", "delete_recurring_run", "enable_recurring_run"]
    assert kubeflow.body_of("create_recurring_run")["mode"] == "DISABLE"
    assert (kubeflow.most_running["nightly"], kubeflow.fewest["nightly"]) == (1, 1)


def test_two_of_a_name_made_by_hand_are_both_replaced(collabopt: Command, kubeflow: Server):
    kubeflow.add_schedule("nightly")
    kubeflow.add_schedule("nightly", mode="DISABLE")
    other = kubeflow.add_schedule("weekly")
    assert collabopt(*NIGHTLY)[0] == 0
    assert [run.display_name for run in kubeflow.recurring_runs] == ["weekly", "nightly"]
    assert kubeflow.recurring_runs[0] is other
    assert kubeflow.most_running["nightly"] == 1


def test_a_paused_replacement_stays_paused(collabopt: Command, kubeflow: Server):
    assert collabopt(*NIGHTLY)[0] == 0
    kubeflow.requests.clear()
    code, output, _ = collabopt(*REPLACEMENT, "--paused")
    assert code == 0
    assert "; it is paused\n" in output
    assert nightly(kubeflow).mode == "DISABLE"
    assert "enable_recurring_run" not in kubeflow.operations


@pytest.mark.parametrize("after_doing", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(1, 10))
def test_cut_off_at_any_call_and_run_again_it_ends_the_same(
    collabopt: Command, kubeflow: Server, call: int, after_doing: bool
):
    kubeflow.add_schedule("nightly")
    kubeflow.add_schedule("nightly", mode="DISABLE")
    kubeflow.most_running.clear()
    kubeflow.dies_at, kubeflow.dies_after_doing = call, after_doing
    refused(collabopt(*REPLACEMENT), "the connection broke off", "may have happened all the same", kubeflow.url)
    assert len(kubeflow.requests) == call
    kubeflow.dies_at = 0
    assert collabopt(*REPLACEMENT)[0] == 0
    assert nightly(kubeflow).runtime_config.parameters["seed"] == 1
    assert nightly(kubeflow).mode == "ENABLE"
    assert kubeflow.most_running["nightly"] == 1
    assert kubeflow.fewest["nightly"] >= 1
    assert len(kubeflow.experiments) == 1


def test_replacing_two_schedules_takes_so_many_calls(collabopt: Command, kubeflow: Server):
    """The range of the test above covers every call."""
    kubeflow.add_schedule("nightly")
    kubeflow.add_schedule("nightly", mode="DISABLE")
    assert collabopt(*REPLACEMENT)[0] == 0
    assert kubeflow.operations == [
        "get_healthz",
        "list_recurring_runs",
        "list_experiments",
        "create_experiment",
        "create_recurring_run",
        "list_recurring_runs",
        "delete_recurring_run",
        "delete_recurring_run",
        "enable_recurring_run",
    ]


def test_an_unfinished_replacement_says_what_to_do(collabopt: Command, kubeflow: Server):
    kubeflow.add_schedule("nightly")
    kubeflow.dies_at = 8
    refused(collabopt(*NIGHTLY), "not yet the only one of its name", "run the same command again")


@pytest.mark.parametrize("seconds", [-1, 1], ids=["earlier", "later"])
def test_of_two_commands_at_once_the_later_one_wins(collabopt: Command, kubeflow: Server, seconds: int):
    kubeflow.add_schedule("nightly")
    others = []

    def meanwhile(request: Request) -> None:
        if request.operation.endswith("list_recurring_runs") and "create_recurring_run" in kubeflow.operations:
            kubeflow.before = lambda request: None
            moment = kubeflow.recurring_runs[-1].created_at + timedelta(seconds=seconds)
            kubeflow.now = lambda: moment
            others.append(kubeflow.add_schedule("nightly", mode="DISABLE"))

    kubeflow.before = meanwhile
    result = collabopt(*REPLACEMENT)
    if seconds > 0:
        refused(result, "another command has placed a schedule 'nightly' at the same time", "schedule list")
        assert others[0] in kubeflow.recurring_runs
        assert [run for run in kubeflow.recurring_runs if run.runtime_config] == []
    else:
        assert result[0] == 0
        assert nightly(kubeflow).runtime_config.parameters["seed"] == 1


@pytest.mark.parametrize("present", [False, True], ids=["first", "replacement"])
def test_two_commands_at_once_never_have_two_running(kubeflow: Server, present: bool):
    """However they overlap; ages are told in seconds, so that they often look equally old."""
    commands = [_command("one", seed=1), _command("other", seed=2)]
    for held, until in itertools.product(range(1, 8), repeat=2):
        kubeflow.recurring_runs.clear()
        if present:
            kubeflow.before = lambda request: None
            kubeflow.add_schedule("nightly")
        kubeflow.most_running.clear()
        _race(kubeflow, commands, held, until)
        assert kubeflow.most_running["nightly"] == 1, (held, until)
        assert nightly(kubeflow).mode == "ENABLE", (held, until)


def _command(name: str, seed: int) -> Callable[[], object]:
    """Places the schedule; every request says by which command it is sent."""
    specification = {"pipeline_spec": {"pipelineInfo": {"name": "quantization"}}, "platform_spec": {}}
    submission = Submission("quantization", specification, {"seed": seed}, experiment="collabopt")
    connected = connect(None, None, None)
    connected.client.recurring_runs.api_client.set_default_header("x-command", name)
    return lambda: place_schedule(connected, Wanted("nightly", submission, Trigger(cron="0 0 3 * * *")))


def _race(server: Server, commands: list[Callable[[], object]], held: int, until: int) -> None:
    """Holds one command up before a request of it until the other is about to send one, which then lets it finish."""
    reached, finished, sent = threading.Event(), threading.Event(), Counter[str]()

    def hold(request: Request) -> None:
        name = request.headers["x-command"]
        sent[name] += 1
        if name == "one" and sent[name] == held:
            assert reached.wait(30)
        if name == "other" and sent[name] == until:
            reached.set()
            assert finished.wait(30)

    def run(command: Callable[[], object], ended: threading.Event) -> None:
        try:
            command()
        except CollaboptError as error:
            assert "another command has placed a schedule" in str(error)
        finally:
            ended.set()

    server.before = hold
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(run, *each) for each in zip(commands, (finished, reached), strict=True)]
    for each in running:
        each.result()


@pytest.mark.parametrize("command", [REPLACEMENT, ["schedule", "delete", "nightly"]], ids=["replaced", "deleted"])
def test_runs_of_a_schedule_that_are_under_way_go_on_when_it_goes(
    collabopt: Command, kubeflow: Server, command: list[str]
):
    assert collabopt(*NIGHTLY)[0] == 0
    before = nightly(kubeflow).recurring_run_id
    kubeflow.workflows[before] = ["a training"]
    assert collabopt(*command)[0] == 0
    assert before not in {run.recurring_run_id for run in kubeflow.recurring_runs}
    assert kubeflow.workflows[before] == ["a training"]


def test_what_others_delete_meanwhile_is_no_problem(collabopt: Command, kubeflow: Server):
    old = kubeflow.add_schedule("nightly")

    def meanwhile(request: Request) -> None:
        if request.operation.endswith("delete_recurring_run") and old in kubeflow.recurring_runs:
            kubeflow.recurring_runs.remove(old)

    kubeflow.before = meanwhile
    assert collabopt(*NIGHTLY)[0] == 0
    assert nightly(kubeflow).mode == "ENABLE"


def test_the_schedule_of_another_pipeline_is_left_alone(collabopt: Command, kubeflow: Server):
    kubeflow.add_schedule("nightly", pipeline_spec={"pipelineInfo": {"name": "churn"}})
    refused(collabopt(*NIGHTLY), "'nightly' that runs another pipeline, 'churn'", "--schedule-name")
    kubeflow.recurring_runs.clear()
    reference = V2beta1PipelineVersionReference(pipeline_id="p", pipeline_version_id="v")
    kubeflow.add_schedule("nightly", pipeline_spec=None, pipeline_version_reference=reference)
    refused(collabopt(*NIGHTLY), "runs an uploaded pipeline", "schedule delete")
    assert kubeflow.changes() == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--cron", "0 25 * * *"], ["the hour '25'", '--cron "0 25 * * *"']),
        (["--cron", "3 * *"], ["3 fields are no cron expression", "daily at 03:00"]),
        (["--every", "often"], ["'often' does not read as an interval", "1h30m"]),
        ([], ["either a cron expression or an interval"]),
        (["--cron", "0 3 * * *", "--every", "6h"], ["either a cron expression or an interval"]),
        (["--every", "6h", "--end", "2020-01-01"], ["nothing would ever fire", "--end 2020-01-01"]),
        (["--every", "6h", "--param", "sparsitty=1"], ["did you mean 'sparsity'"]),
        (["--every", "6h", "--releases", "here"], ["gs:// only"]),
    ],
    ids=lambda value: " ".join(value) or "nothing",
)
def test_what_can_be_known_is_said_before_anything_is_sent(
    collabopt: Command, kubeflow: Server, options: list[str], expected: list[str]
):
    refused(collabopt("schedule", "--example", "digits", *options), *expected)
    assert kubeflow.requests == []
    assert os.listdir() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["schedule", "--cron", "0 3 * * *"],
        ["schedule", "--every", "6h", "--example", "digits", "--max-concurrency", "11"],
        ["schedule", "--every", "6h", "list"],
        ["schedule", "--host", "http://localhost", "pause", "nightly"],
        ["schedule", "pause"],
        ["schedule", "no-such-command"],
    ],
    ids=" ".join,
)
def test_usage_errors_end_with_2(collabopt: Command, kubeflow: Server, arguments: list[str]):
    code, _, errors = collabopt(*arguments)
    assert code == 2
    assert "Traceback" not in errors
    assert kubeflow.requests == []


def test_the_list_shows_every_page_and_everybodys_schedules(collabopt: Command, kubeflow: Server):
    kubeflow.page_size = 2
    clock = itertools.count(1_700_000_000)
    kubeflow.now = lambda: datetime.fromtimestamp(next(clock), UTC)
    assert collabopt(*NIGHTLY)[0] == 0
    periodic = V2beta1PeriodicSchedule(interval_second="5400", start_time=datetime(2090, 1, 1, tzinfo=UTC))
    kubeflow.add_schedule("hourly", trigger=V2beta1Trigger(periodic_schedule=periodic))
    odd = V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron="@every 1h"))
    kubeflow.add_schedule("odd", trigger=odd, pipeline_spec=None)
    kubeflow.add_schedule("paused", mode="DISABLE", pipeline_spec={"pipelineInfo": {"name": "churn"}})
    kubeflow.now = lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=130)
    kubeflow.add_schedule(
        "since", trigger=V2beta1Trigger(periodic_schedule=V2beta1PeriodicSchedule(interval_second="3600"))
    )
    kubeflow.now = lambda: datetime.now(UTC).replace(microsecond=0)
    kubeflow.add_schedule("never", trigger=None)
    kubeflow.now = lambda: datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=5)
    five = V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron="0 3 * * *"))
    kubeflow.add_schedule("five fields", trigger=five)
    code, output, _ = collabopt("schedule", "list")
    assert code == 0
    rows = {line.split("  ")[1].strip(): line.split() for line in output.splitlines() if line.count("-") >= 4}
    assert list(rows) == ["nightly", "hourly", "odd", "paused", "since", "never", "five fields"]
    ids = {run.display_name: run.recurring_run_id for run in kubeflow.recurring_runs}
    assert {name: row[-1] for name, row in rows.items()} == ids
    tomorrow = datetime.now(UTC) + timedelta(days=datetime.now(UTC).hour >= 3)
    assert rows["nightly"][1:-1] == [
        *("quantization", "0", "0", "3", "*", "*", "*", "running", tomorrow.strftime("%Y-%m-%d"), "03:00")
    ]
    assert rows["hourly"][1:-1] == ["quantization", "every", "1h30m", "running", "~2090-01-01", "01:30"]
    assert rows["odd"][1:-1] == ["(uploaded)", "@every", "1h", "running", "?"]
    made = next(run.created_at for run in kubeflow.recurring_runs if run.display_name == "since")
    expected = (made + timedelta(hours=3)).strftime("~%Y-%m-%d %H:%M").split()
    assert rows["since"][1:-1] == ["quantization", "every", "1h", "running", *expected]
    assert rows["never"][1:-1] == ["quantization", "-", "running", "-"]
    assert rows["paused"][1:-1] == ["churn", "0", "0", "3", "*", "*", "*", "paused", "-"]
    assert rows["five fields"][2:-1] == ["quantization", "0", "3", "*", "*", "*", "running", "?"]
    assert [request.query.get("page_token") for request in kubeflow.requests[-4:]] == [None, "2", "4", "6"]


def test_the_list_as_json(collabopt: Command, kubeflow: Server):
    assert collabopt(*NIGHTLY, "--end", "2099-01-01")[0] == 0
    code, output, _ = collabopt("schedule", "list", "--json")
    assert code == 0
    (row,) = json.loads(output)
    assert row["id"] == nightly(kubeflow).recurring_run_id
    assert (row["name"], row["pipeline"], row["enabled"], row["catch_up"]) == ("nightly", "quantization", True, False)
    assert row["trigger"] == {
        "cron": "0 0 3 * * *",
        "interval_seconds": 0,
        "start": None,
        "end": "2099-01-01T00:00:00+00:00",
    }


def test_the_namespace_is_sent_with_every_list(collabopt: Command, kubeflow: Server):
    kubeflow.multi_user = True
    assert collabopt(*NIGHTLY, "-n", "team-a")[0] == 0
    assert collabopt("schedule", "list", "-n", "team-a")[0] == 0
    lists = [request for request in kubeflow.requests if "list" in request.operation]
    assert {request.query["namespace"] for request in lists} == {"team-a"}
    refused(collabopt("schedule", "list"), "in whose namespace?")
    refused(collabopt("schedule", "list", "-n", "team-b"), "no right to", "namespace 'team-b'")


def test_pause_resume_and_delete_act_on_a_name_or_an_id(collabopt: Command, kubeflow: Server):
    kubeflow.add_schedule("nightly")
    identifier = nightly(kubeflow).recurring_run_id
    for name in ("nightly", identifier):
        assert collabopt("schedule", "pause", name)[:2] == (0, f"'nightly' ({identifier}) is paused\n")
        assert nightly(kubeflow).mode == "DISABLE"
        assert collabopt("schedule", "resume", name)[:2] == (0, f"'nightly' ({identifier}) is running\n")
        assert nightly(kubeflow).mode == "ENABLE"
    assert collabopt("schedule", "delete", "nightly")[:2] == (0, f"'nightly' ({identifier}) is deleted\n")
    assert kubeflow.recurring_runs == []
    assert [(request.method, request.path) for request in kubeflow.requests if request.method != "GET"] == [
        *(
            ("POST", f"/apis/v2beta1/recurringruns/{identifier}:{action}")
            for action in ("disable", "enable", "disable", "enable")
        ),
        ("DELETE", f"/apis/v2beta1/recurringruns/{identifier}"),
    ]


def test_where_a_name_is_not_enough_an_id_is_asked_for(collabopt: Command, kubeflow: Server):
    first = kubeflow.add_schedule("nightly").recurring_run_id
    second = kubeflow.add_schedule("nightly").recurring_run_id
    for command in ("resume", "delete"):
        refused(collabopt("schedule", command, "nightly"), "there are 2 schedules 'nightly'", first, second)
    assert kubeflow.changes() == []
    assert collabopt("schedule", "pause", "nightly")[0] == 0
    assert {run.mode for run in kubeflow.recurring_runs} == {"DISABLE"}
    assert collabopt("schedule", "delete", second)[0] == 0
    assert nightly(kubeflow).recurring_run_id == first
    kubeflow.add_schedule("nightly")
    assert collabopt("schedule", "delete", "nightly", "--all")[0] == 0
    assert kubeflow.recurring_runs == []


@pytest.mark.parametrize("command", ["pause", "resume", "delete"])
def test_an_unknown_schedule_is_refused_with_those_there_are(collabopt: Command, kubeflow: Server, command: str):
    kubeflow.add_schedule("weekly")
    refused(collabopt("schedule", command, "nightly"), "there is no schedule 'nightly'", "schedules: weekly")
