"""The connection to a Kubeflow Pipelines server: whom we ask, as whom, and what a refusal means."""

import json
import os
import ssl
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import kfp_server_api
import urllib3
from google.auth.exceptions import GoogleAuthError
from kfp import client as kfp_client

from collabopt.components.engine.errors import CollaboptError

ENDPOINT_VARIABLE = "KF_PIPELINES_ENDPOINT"
UI_VARIABLE = "KF_PIPELINES_UI_ENDPOINT"
# The name under which the `kfp` command takes a token.
TOKEN_VARIABLE = "KFP_EXISTING_TOKEN"
COOKIES_VARIABLE = "KFP_COOKIES"
CONNECT_SECONDS, READ_SECONDS = 5.0, 45.0

_IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_MESSAGE_CHARACTERS = 800
_SHORTEST_SECRET = 8
_HOW_TO_AUTHENTICATE = (
    f"set {TOKEN_VARIABLE} to a valid token, or {COOKIES_VARIABLE} to the cookies of a session "
    "(oauth2_proxy_kubeflow=... or authservice_session=...); in a pod, mount a token for pipelines.kubeflow.org and "
    f"name its file in {kfp_client.KF_PIPELINES_SA_TOKEN_ENV}"
)
_NEVER_THERE = (
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.LocationParseError,
)

Answer = TypeVar("Answer")


class _Client(kfp_client.Client):
    def get_kfp_healthz(self, sleep_duration: int = 5) -> kfp_server_api.V2beta1GetHealthzResponse:
        # While it is constructed, kfp's own asks a server that refuses five times, five seconds apart, and keeps the
        # namespace of the pod in the home directory. `connect` asks once, and keeps nothing.
        return kfp_server_api.V2beta1GetHealthzResponse()


class NotFound(CollaboptError):
    """The server has no such object."""


class Unavailable(CollaboptError):
    """The server gives no answer, or fails by itself; it may be there again later."""


@dataclass(frozen=True)
class Kubeflow:
    """A Kubeflow Pipelines server that has answered.

    Attributes:
        client: Its client; the generated APIs are `client.runs`, `client.recurring_runs`, `client.experiments`.
        host: Address of the API.
        namespace: Namespace of the user; "" where the server knows none (single-user mode).
        credentials: What we show it, in words.
        secrets: What must not be in any message, besides the token in use.
    """

    client: kfp_client.Client
    host: str
    namespace: str
    credentials: str
    secrets: tuple[str, ...] = ()

    def ask(self, what: str, method: Callable[..., Answer], *arguments: object, **options: object) -> Answer:
        """Calls a method of a generated API, within a time limit.

        Args:
            what: What for, as in "create the run".
            method: The method.
            arguments: Its arguments.
            options: Its options; those that are None or "" are left out.

        Raises:
            NotFound: There is no such object.
            Unavailable: The server cannot be reached, does not answer in time, or fails.
            CollaboptError: It refuses, or is none of Kubeflow Pipelines.
        """
        given = {name: value for name, value in options.items() if value not in (None, "")}
        try:
            answer = method(*arguments, **given, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))
        except kfp_server_api.ApiException as error:
            raise self._refusal(what, error) from error
        except UnicodeDecodeError as error:
            raise self._stranger(what) from error
        except urllib3.exceptions.HTTPError as error:
            raise self._silence(what, error) from error
        if "json" not in (_api_client(method).last_response.getheader("content-type") or ""):
            raise self._stranger(what)
        return answer

    def link(self, kind: str, identifier: str) -> str:
        """Address of a page of Kubeflow's UI, as `runs` or `recurringrun`."""
        return f"{os.environ.get(UI_VARIABLE) or self.host}/#/{kind}/details/{identifier}"

    def _refusal(self, what: str, error: kfp_server_api.ApiException) -> CollaboptError:
        if not error.status:
            return self._silence(what, error)
        where = f"{self.host}, HTTP {error.status}"
        message = self._message(error)
        if error.status == 401 or 300 <= error.status < 400:
            return CollaboptError(
                f"cannot {what}: Kubeflow does not know who you are{message}",
                where=f"{where}, with {self.credentials}",
                todo=_HOW_TO_AUTHENTICATE,
            )
        if error.status == 403:
            place = f"namespace '{self.namespace}'" if self.namespace else "this server"
            return CollaboptError(
                f"cannot {what}: you have no right to, in {place}{message}",
                where=f"{where}, with {self.credentials}",
                todo="check that the namespace is spelled right and is yours; its owner can add you as a contributor "
                "(role kubeflow-edit)",
            )
        if _is_html(error):
            return self._stranger(what, where)
        if error.status == 404:
            return NotFound(f"cannot {what}: it is not there{message}", where=where)
        if error.status >= 500:
            return Unavailable(f"cannot {what}: the server fails{message}", where=where)
        return CollaboptError(f"cannot {what}: the server refuses{message}", where=where)

    def _message(self, error: kfp_server_api.ApiException) -> str:
        """What the server says, after a colon; nothing of a web page."""
        try:
            said = json.loads(error.body)
        except (TypeError, ValueError):
            return ""
        text = str(said.get("message") or said.get("error") or "") if isinstance(said, Mapping) else ""
        # A token that is read anew when it expires, or that Google has given, is known only here.
        in_use = _api_client(self.client.runs.run_service_get_run).configuration.api_key.values()
        for secret in sorted({*self.secrets, *filter(None, in_use)}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return f": {text[:_MESSAGE_CHARACTERS]}" if text else ""

    def _silence(self, what: str, error: Exception) -> CollaboptError:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLError | urllib3.exceptions.SSLError):
            return CollaboptError(
                f"cannot {what}: the server's certificate is not trusted",
                where=self.host,
                todo="pass the certificate of the authority that signed it with --ca-cert FILE",
            )
        if isinstance(reason, _NEVER_THERE):
            return Unavailable(
                f"cannot {what}: the server cannot be reached ({str(reason).rpartition(': ')[2]})",
                where=self.host,
                todo="check the address, and that it can be reached from here; for example "
                "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80, then --host http://localhost:8080",
            )
        late = isinstance(reason, urllib3.exceptions.ReadTimeoutError)
        how = f"no answer within {READ_SECONDS:g} seconds" if late else "the connection broke off before an answer"
        return Unavailable(
            f"cannot {what}: {how}; it may have happened all the same",
            where=self.host,
            todo="look in Kubeflow's UI before you try again",
        )

    def _stranger(self, what: str, where: str = "") -> CollaboptError:
        return CollaboptError(
            f"cannot {what}: what answers is a web page, not Kubeflow Pipelines; a login page, perhaps",
            where=f"{where or self.host}, with {self.credentials}",
            todo=f"check the address (Kubeflow's dashboard has the API below /pipeline); {_HOW_TO_AUTHENTICATE}",
        )


def connect(host: str | None, namespace: str | None, ca_cert: Path | None) -> Kubeflow:
    """Connects to a server and asks it whether it is one.

    Args:
        host: Its address; None for `KF_PIPELINES_ENDPOINT`, or in a pod the server of its cluster.
        namespace: The user's namespace; None for that of kfp's context, or in a pod the pod's.
        ca_cert: File with the authorities to trust; None for the usual ones.

    Raises:
        CollaboptError: There is no address, no answer, or the credentials or the namespace are not right.
    """
    address = _address(host)
    token, cookies = _credential(TOKEN_VARIABLE), _credential(COOKIES_VARIABLE)
    token_file = None if token or os.environ.get("KF_PIPELINES_IAP_OAUTH2_CLIENT_ID") else _token_file()
    if token_file:
        _checked_credential(_text(token_file), str(token_file))
    _check_authorities(ca_cert)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # "only works with Kubeflow Pipeline v2.0.0-beta.2 and later"
        try:
            client = _Client(
                host=address,
                existing_token=token or None,
                cookies=cookies or None,
                credentials=kfp_client.ServiceAccountTokenVolumeCredentials(str(token_file)) if token_file else None,
                ssl_ca_cert=str(ca_cert) if ca_cert else None,
            )
        except GoogleAuthError as error:
            raise CollaboptError(
                "Google does not give a token for Identity-Aware Proxy", where=address, todo="gcloud auth login"
            ) from error
    _retry_connecting_only(_api_client(client.healthzs.healthz_service_get_healthz))
    found = Kubeflow(
        client=client,
        host=address,
        namespace="",
        credentials=_credentials(token, cookies, token_file),
        secrets=(*filter(None, (token, cookies)), *_values(cookies)),
    )
    health = found.ask("ask the server for its health", client.healthzs.healthz_service_get_healthz)
    own = _namespace(namespace, client.get_user_namespace(), several_users=bool(health.multi_user), address=address)
    return Kubeflow(client, address, own, found.credentials, found.secrets)


def _address(host: str | None) -> str:
    given = host or os.environ.get(ENDPOINT_VARIABLE) or ("KUBERNETES_SERVICE_HOST" in os.environ and _IN_CLUSTER)
    if not given:
        raise CollaboptError(
            "the address of Kubeflow Pipelines is not known",
            where=f"--host, {ENDPOINT_VARIABLE}",
            todo="pass --host URL; for example kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80, then "
            "--host http://localhost:8080",
        )
    try:
        parts = urlsplit(given)
    except ValueError:  # a bracket that does not close
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CollaboptError(
            "this is not the address of a server",
            where=f"--host {given}",
            todo="write it as https://HOST or http://HOST",
        )
    if parts.username or parts.password:
        raise CollaboptError(
            "an address must not hold credentials", where=f"--host {parts.hostname}", todo=_HOW_TO_AUTHENTICATE
        )
    return given.partition("#")[0].rstrip("/")


def _namespace(namespace: str | None, of_context: str, *, several_users: bool, address: str) -> str:
    if not several_users:
        if namespace:
            raise CollaboptError(
                f"this Kubeflow is in single-user mode and has no namespace '{namespace}' for users",
                where=address,
                todo="leave --namespace out",
            )
        return ""
    own = namespace or of_context or _text(_POD_NAMESPACE)
    if not own:
        raise CollaboptError(
            "this Kubeflow has several users; in whose namespace?", where=address, todo="pass --namespace NAMESPACE"
        )
    return own


def _token_file() -> Path | None:
    named = os.environ.get(kfp_client.KF_PIPELINES_SA_TOKEN_ENV)
    path = Path(named or kfp_client.KF_PIPELINES_SA_TOKEN_PATH)
    if path.is_file():
        return path
    if named:
        raise CollaboptError(
            "there is no token file", where=f"{kfp_client.KF_PIPELINES_SA_TOKEN_ENV}={named}", todo="correct the path"
        )
    return None


def _credential(variable: str) -> str:
    """A secret in the environment, without the line break that the file it came from ended with."""
    return _checked_credential(os.environ.get(variable, "").strip(), variable)


def _checked_credential(secret: str, where: str) -> str:
    """Refuses what no header of HTTP can hold; the library that writes headers would show it in its error."""
    if not (secret.isascii() and secret.isprintable()):
        raise CollaboptError(
            "these are no credentials: they hold line breaks, or characters beyond ASCII",
            where=where,
            todo="set them again; nothing but the token or the cookies belongs there",
        )
    return secret


def _values(cookies: str) -> Iterator[str]:
    """The values of single cookies, but for such as `lang=en`."""
    values = (pair.partition("=")[2].strip() for pair in cookies.split(";"))
    return (value for value in values if len(value) >= _SHORTEST_SECRET)


def _text(path: Path) -> str:
    """The text of a small file; "" where there is none."""
    try:
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise CollaboptError(
            f"this file cannot be read: {reason}", where=str(path), todo="name another file, or give the rights to it"
        ) from error


def _check_authorities(ca_cert: Path | None) -> None:
    if ca_cert is None:
        return
    try:
        ssl.create_default_context(cafile=ca_cert)
    except OSError as error:  # ssl.SSLError, too
        raise CollaboptError(
            "this is not a file of certificates", where=f"--ca-cert {ca_cert}", todo="pass a PEM file"
        ) from error


def _credentials(token: str, cookies: str, token_file: Path | None) -> str:
    shown = [TOKEN_VARIABLE] if token else []
    shown += [f"the token in {token_file}"] if token_file else []
    shown += [COOKIES_VARIABLE] if cookies else []
    return " and ".join(shown) or "no credentials of ours"


def _api_client(method: Any) -> kfp_server_api.ApiClient:
    return method.__self__.api_client


def _retry_connecting_only(client: kfp_server_api.ApiClient) -> None:
    """By default every request that is not answered in time is sent three times more."""
    client.configuration.retries = urllib3.Retry(connect=2, read=False, redirect=3)
    client.rest_client = kfp_server_api.rest.RESTClientObject(client.configuration)


def _is_html(error: kfp_server_api.ApiException) -> bool:
    return "html" in ((error.headers or {}).get("content-type") or "")
