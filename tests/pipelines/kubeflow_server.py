"""A Kubeflow Pipelines server on loopback, made from KFP's published OpenAPI: the package `kfp_server_api`.

Routes, query parameters, bodies and answers are those of the generated client: its methods are called once with a
client that records instead of sending. A request that the API does not define is answered with 501; a body is read
strictly, every answer is made of a model. Behind it are experiments, runs and recurring runs that act.
"""

import inspect
import json
import re
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import kfp_server_api as api

_DOCUMENTED = re.compile(r":type (\w+): (\S+?)(?:, optional)?$", re.MULTILINE)
_GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 500: 13}


@dataclass(frozen=True)
class Route:
    """An operation of the API.

    Attributes:
        operation: Name of the method, as `run_service_create_run`.
        method: HTTP method.
        path: Expression for its path, with a group per parameter.
        query: Names of its query parameters.
        body: Model of its body; "" for none.
        answer: Model of its answer.
    """

    operation: str
    method: str
    path: re.Pattern[str]
    query: frozenset[str]
    body: str
    answer: str


class _Recorder(api.ApiClient):
    """Takes down what a generated method would send."""

    def call_api(self, resource_path: str, method: str, *arguments: Any, **options: Any) -> tuple[Any, ...]:
        path_params, query_params = arguments[0], arguments[1]
        return resource_path, method, path_params, query_params, options


def published_routes() -> list[Route]:
    """Every operation that the generated client knows."""
    return [
        _route(name, method)
        for service in vars(api.api).values()
        if inspect.isclass(service)
        for name, method in inspect.getmembers(service(_Recorder()), inspect.ismethod)
        if f"{name}_with_http_info" in dir(service) and "upload" not in name
    ]


def _route(name: str, method: Callable[..., Any]) -> Route:
    types = {key: kind for key, kind in _DOCUMENTED.findall(method.__doc__ or "") if key != "async_req"}
    path, verb, _, query, options = method(**{key: object() for key in types})
    body = next((kind for key, kind in types.items() if kind[0].isupper() and options["body"] is not None), "")
    expression = re.sub(r"\\{([\w.]+)\\}", lambda match: f"(?P<{match[1].replace('.', '_')}>[^/:]+)", re.escape(path))
    return Route(name, verb, re.compile(expression), frozenset(key for key, _ in query), body, options["response_type"])


def read_strictly(value: Any, kind: str, where: str = "") -> Any:
    """Makes an instance of a published type; raises `Refused` for a field or a type that it does not have."""
    if value is None or kind == "object":
        return value
    if kind.startswith("list["):
        return [read_strictly(item, kind[5:-1], where) for item in _of(list, value, where)]
    if kind.startswith("dict("):
        inner = kind.partition(", ")[2][:-1]
        return {key: read_strictly(item, inner, f"{where}.{key}") for key, item in _of(dict, value, where).items()}
    if kind == "datetime":
        return datetime.fromisoformat(_of(str, value, where))
    if kind in ("str", "int", "bool", "float"):
        return _of({"str": str, "int": int, "bool": bool, "float": float}[kind], value, where)
    model = getattr(api, kind)
    if not model.openapi_types:  # an enumeration
        if value not in model.allowable_values:
            raise Refused(400, f"{where}: {value!r} is none of {model.allowable_values}")
        return value
    attributes = {name: attribute for attribute, name in model.attribute_map.items()}
    for name in _of(dict, value, where):
        if name not in attributes:
            raise Refused(400, f"{where}: {kind} has no field {name!r}")
    return model(
        **{
            attributes[name]: read_strictly(item, model.openapi_types[attributes[name]], f"{where}.{name}")
            for name, item in value.items()
        }
    )


def _of(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise Refused(400, f"{where}: {value!r} is no {kind.__name__}")
    return value


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        """Keeps the status; the message goes into the answer."""
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What has arrived."""

    operation: str
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Raw:
    """An answer that Kubeflow would not give."""

    status: int
    content_type: str
    content: str
    location: str = ""


@dataclass
class Server:
    """The server and its state.

    Attributes:
        url: Its address.
        multi_user: Whether there are namespaces; those in `namespaces` are the caller's.
        token: The token that it wants; "" for none.
        page_size: The most that it lists at once.
        states: What the state of a run is, one for each time it is asked for; the last one stays.
        instead: Operation, or "" for all -> what is answered in its place.
        dies_at: Number of the request at which it stops answering for good, counted from 1; 0 for never.
        dies_after_doing: Whether it still does what that request asks for.
        now: Its clock.
        requests: What has arrived.
        violations: What the published API does not define.
        workflows: Id of a recurring run -> what Kubernetes knows of its runs that are under way.
        most_running: Name of a schedule -> the most of that name that were ever enabled at once.
        fewest: Name of a schedule -> the fewest of that name that there ever were since the first.
    """

    url: str = ""
    multi_user: bool = False
    namespaces: tuple[str, ...] = ("team-a",)
    token: str = ""
    page_size: int = 100
    states: list[str] = field(default_factory=lambda: ["SUCCEEDED"])
    instead: dict[str, Raw] = field(default_factory=dict)
    dies_at: int = 0
    dies_after_doing: bool = False
    now: Callable[[], datetime] = lambda: datetime.now(UTC).replace(microsecond=0)
    experiments: list[api.V2beta1Experiment] = field(default_factory=list)
    runs: list[api.V2beta1Run] = field(default_factory=list)
    recurring_runs: list[api.V2beta1RecurringRun] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    workflows: dict[str, list[str]] = field(default_factory=dict)
    most_running: dict[str, int] = field(default_factory=dict)
    fewest: dict[str, int] = field(default_factory=dict)
    before: Callable[[Request], None] = lambda request: None

    @property
    def operations(self) -> list[str]:
        """What was asked for, in order, without the names of the services."""
        return [re.sub(r"^\w+_service_", "", request.operation) for request in self.requests]

    def changes(self) -> list[str]:
        """What was asked for that is not merely read."""
        return [operation for operation in self.operations if not operation.startswith(("get_", "list_"))]

    def body_of(self, operation: str) -> Any:
        """Body of the only request for an operation."""
        (request,) = [request for request in self.requests if request.operation.endswith(operation)]
        return request.body

    def add_schedule(self, name: str, **fields: Any) -> api.V2beta1RecurringRun:
        """Adds a recurring run, as somebody makes it by hand."""
        specification = {"pipeline_spec": {"pipelineInfo": {"name": "quantization"}}, "platform_spec": {}}
        cron = api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron="0 0 3 * * *"))
        given = {"pipeline_spec": specification, "trigger": cron, "mode": "ENABLE", "max_concurrency": "1", **fields}
        return self._create_recurring_run({}, {}, api.V2beta1RecurringRun(display_name=name, **given))

    def handle(self, request: Request, route: Route, parameters: Mapping[str, str]) -> Any:
        """Does what a request asks for; returns the model that answers it."""
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            raise Refused(401, f"Request header error: there is no user identity; got {dict(request.headers)}")
        self.before(request)
        body = read_strictly(request.body, route.body, route.body) if route.body else None
        answer = getattr(self, _action(route.operation))(parameters, request.query, body)
        self._watch()
        return answer

    def _watch(self) -> None:
        names = {run.display_name for run in self.recurring_runs} | set(self.fewest)
        for name in names:
            own = [run for run in self.recurring_runs if run.display_name == name]
            running = sum(run.mode == "ENABLE" for run in own)
            self.most_running[name] = max(self.most_running.get(name, 0), running)
            self.fewest[name] = min(self.fewest.get(name, len(own)), len(own))

    def _check_namespace(self, namespace: str | None) -> None:
        if not self.multi_user and namespace:
            raise Refused(400, "Namespace should not be provided in single-user mode.")
        if self.multi_user and not namespace:
            raise Refused(400, "A namespace is needed in multi-user mode.")
        if self.multi_user and namespace not in self.namespaces:
            raise Refused(403, f"User 'me' is not authorized with reason: (request: {namespace})")

    def _get_healthz(self, *_: Any) -> api.V2beta1GetHealthzResponse:
        return api.V2beta1GetHealthzResponse(multi_user=self.multi_user)

    def _list_experiments(self, _: Any, query: Mapping[str, str], __: Any) -> api.V2beta1ListExperimentsResponse:
        self._check_namespace(query.get("namespace"))
        chosen = read_strictly(json.loads(query["filter"]), "V2beta1Filter", "filter")
        (predicate,) = chosen.predicates
        assert (predicate.operation, predicate.key) == ("EQUALS", "display_name")
        found = [one for one in self.experiments if one.display_name == predicate.string_value]
        return api.V2beta1ListExperimentsResponse(experiments=found or None, total_size=len(found))

    def _create_experiment(self, _: Any, __: Any, body: api.V2beta1Experiment) -> api.V2beta1Experiment:
        self._check_namespace(body.namespace)
        body.experiment_id, body.created_at = str(uuid.uuid4()), self.now()
        self.experiments.append(body)
        return body

    def _known_experiment(self, identifier: str | None) -> None:
        if identifier not in [one.experiment_id for one in self.experiments]:
            raise Refused(404, f"Experiment {identifier} not found")

    def _create_run(self, _: Any, __: Any, body: api.V2beta1Run) -> api.V2beta1Run:
        self._known_experiment(body.experiment_id)
        body.run_id, body.created_at, body.state = str(uuid.uuid4()), self.now(), "PENDING"
        self.runs.append(body)
        return body

    def _get_run(self, parameters: Mapping[str, str], _: Any, __: Any) -> api.V2beta1Run:
        run = next((run for run in self.runs if run.run_id == parameters["run_id"]), None)
        if run is None:
            raise Refused(404, "Run not found")
        run.state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return run

    def _create_recurring_run(self, _: Any, __: Any, body: api.V2beta1RecurringRun) -> api.V2beta1RecurringRun:
        if body.experiment_id is not None:
            self._known_experiment(body.experiment_id)
        body.recurring_run_id, body.created_at = str(uuid.uuid4()), self.now()
        body.status = "ENABLED" if body.mode == "ENABLE" else "DISABLED"
        self.recurring_runs.append(body)
        return body

    def _list_recurring_runs(self, _: Any, query: Mapping[str, str], __: Any) -> api.V2beta1ListRecurringRunsResponse:
        self._check_namespace(query.get("namespace"))
        begin = int(query.get("page_token") or 0)
        end = begin + min(self.page_size, int(query["page_size"]))
        return api.V2beta1ListRecurringRunsResponse(
            recurring_runs=self.recurring_runs[begin:end],
            total_size=len(self.recurring_runs),
            next_page_token=str(end) if end < len(self.recurring_runs) else None,
        )

    def _recurring_run(self, parameters: Mapping[str, str]) -> api.V2beta1RecurringRun:
        wanted = parameters["recurring_run_id"]
        found = next((run for run in self.recurring_runs if run.recurring_run_id == wanted), None)
        if found is None:
            raise Refused(404, f"RecurringRun {wanted} not found")
        return found

    def _enable_recurring_run(self, parameters: Mapping[str, str], _: Any, __: Any) -> dict[str, Any]:
        run = self._recurring_run(parameters)
        run.mode, run.status = "ENABLE", "ENABLED"
        return {}

    def _disable_recurring_run(self, parameters: Mapping[str, str], _: Any, __: Any) -> dict[str, Any]:
        run = self._recurring_run(parameters)
        run.mode, run.status = "DISABLE", "DISABLED"
        return {}

    def _delete_recurring_run(self, parameters: Mapping[str, str], query: Mapping[str, str], _: Any) -> dict[str, Any]:
        run = self._recurring_run(parameters)
        self.recurring_runs.remove(run)
        policy = read_strictly(query.get("propagation_policy"), "V2beta1DeletePropagationPolicy", "propagation_policy")
        if policy != "ORPHAN":  # as Kubernetes does with what an object owns
            self.workflows.pop(run.recurring_run_id, None)
        return {}


def _action(operation: str) -> str:
    return "_" + operation.partition("_service_")[2]


@contextmanager
def kubeflow_server(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Runs a server until the block ends; by HTTPS where there is a certificate."""
    server, routes = Server(), published_routes()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in two parts waits 40 ms for the first one to be acknowledged

        def do_GET(self) -> None:
            self._answer()

        do_POST = do_DELETE = do_PUT = do_PATCH = do_GET

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            route, match = _find(routes, self.command, parts.path)
            request = Request(
                operation=route.operation if route else "",
                method=self.command,
                path=parts.path,
                query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                body=json.loads(content) if content else None,
                headers={name.lower(): value for name, value in self.headers.items()},
            )
            server.requests.append(request)
            dead = 0 < server.dies_at <= len(server.requests)
            if dead and not (server.dies_after_doing and len(server.requests) == server.dies_at):
                self.close_connection = True
                return
            status, kind, text, location = self._result(request, route, match)
            if dead:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(text.encode())

        def _result(self, request: Request, route: Route | None, match: Mapping[str, str]) -> tuple[int, str, str, str]:
            raw = server.instead.get(_action(request.operation)[1:]) or server.instead.get("")
            if raw is not None:
                return raw.status, raw.content_type, raw.content, raw.location
            if route is None or not request.query.keys() <= route.query:
                server.violations.append(f"{request.method} {self.path}")
                return 501, "text/plain", "not implemented", ""
            try:
                answer = server.handle(request, route, match)
            except Refused as refused:
                answer = api.GoogleRpcStatus(code=_GRPC_CODES[refused.status], message=str(refused))
                return refused.status, *_json(answer), ""
            assert type(answer).__name__ == route.answer or (answer == {} and route.answer == "object")
            return 200, *_json(answer), ""

        def log_message(self, *_: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    if tls is not None:
        listener.socket = tls.wrap_socket(listener.socket, server_side=True)
    server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def _find(routes: list[Route], method: str, path: str) -> tuple[Route | None, Mapping[str, str]]:
    for route in routes:
        match = route.path.fullmatch(path)
        if match and route.method == method:
            return route, {key: unquote(value) for key, value in match.groupdict().items()}
    return None, {}


def _json(answer: Any) -> tuple[str, str]:
    return "application/json", json.dumps(api.ApiClient().sanitize_for_serialization(answer))
