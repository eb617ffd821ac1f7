"""Signs requests with botocore and sends them to an S3 door, to see its answers as they are."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode
from xml.etree import ElementTree

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.doors import PROFILE, Served
from tests.support.mounts import until

SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its headers by their names in lower case, its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of an error; '' of a success."""
        return "" if self.status < 400 else ElementTree.fromstring(self.body).findtext("Code", "")


@dataclass(frozen=True)
class Credential:
    """A key as its holder has it."""

    access_key: str
    secret_key: str
    fields: str = ""

    def table(self) -> str:
        """Return it as a table of the file of keys."""
        return (
            f'[[key]]\nname = "{self.access_key.lower()}"\naccess_key = "{self.access_key}"\n'
            f'secret_key = "{self.secret_key}"\n{self.fields}\n'
        )


ALL = Credential("ALL", "a" * 40)


class S3Client:
    """Signs and sends requests, each on a connection of its own unless one is given."""

    def __init__(
        self, port: int, credential: Credential = ALL, tls: ssl.SSLContext | None = None
    ) -> None:
        self.port = port
        self._credentials = Credentials(credential.access_key, credential.secret_key)
        self._tls = tls
        self.host = f"localhost:{port}"

    def connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection("localhost", self.port, context=self._tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def signed(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[str, dict[str, str]]:
        """Return target and headers; ``path`` is below the bucket."""
        target = quote(f"/{PROFILE}/{path}" if path is not None else "/")
        if parameters:
            target += "?" + urlencode(parameters, quote_via=quote, safe="")
        sent = {"Host": self.host, **(headers or {})}
        request = AWSRequest(method, f"http://{self.host}{target}", sent, body)
        botocore.auth.S3SigV4Auth(self._credentials, "s3", "us-east-1").add_auth(request)
        return target, dict(request.headers.items())

    def begin(
        self, method: str, path: str, connection: http.client.HTTPConnection, **more: object
    ) -> http.client.HTTPResponse:
        """Send a request; return the response with its body to be read."""
        body = more.get("body", b"")
        target, headers = self.signed(method, path, **more)  # type: ignore[arg-type]
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))  # type: ignore[arg-type]
        connection.endheaders(body)  # type: ignore[arg-type]
        return connection.getresponse()

    def ask(
        self,
        method: str,
        path: str,
        connection: http.client.HTTPConnection | None = None,
        **more: object,
    ) -> Answer:
        """Send a request; return the whole answer."""
        with contextlib.closing(connection or self.connect()) as made:
            response = self.begin(method, path, made, **more)
            body = response.read()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, body)

    def get(self, path: str, **headers: str) -> Answer:
        """Get an object; underscores in names of headers are dashes."""
        return self.ask(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )

    def list(self, prefix: str = "", **parameters: str) -> "list[dict[str, str]]":
        """Return the objects of all pages; common prefixes have the field ``Prefix`` alone."""
        found: list[dict[str, str]] = []
        token = ""
        while True:
            asked = {"list-type": "2", "prefix": prefix, **_dashed(parameters)}
            if token:
                asked["continuation-token"] = token
            answer = self.ask("GET", "", parameters=asked)
            assert answer.status == 200, answer
            root = ElementTree.fromstring(answer.body)
            for name in ("Contents", "CommonPrefixes"):
                found += [
                    {field.tag.removeprefix(SPACE): field.text or "" for field in each}
                    for each in root.findall(f"{SPACE}{name}")
                ]
            token = root.findtext(f"{SPACE}NextContinuationToken", "")
            if not token:
                return found

    def keys(self, prefix: str = "", **parameters: str) -> "list[str]":
        """Return keys and common prefixes of all pages."""
        return [each.get("Key") or each["Prefix"] for each in self.list(prefix, **parameters)]


def _dashed(parameters: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in parameters.items()}


class S3Served(Served):
    """A ``phonofs serve --listen`` process, and its file of keys."""

    @property
    def keys(self) -> Path:
        return self.cache.parent / "keys.toml"

    @property
    def port(self) -> int:
        return int(str(self.status()["s3"]["address"]).rpartition(":")[2])  # type: ignore[index]

    def client(self, credential: Credential = ALL) -> S3Client:
        return S3Client(self.port, credential)

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 60)

    def gauges(self) -> tuple[object, ...]:
        """Return the connections, the requests under way, and the open files and waiting reads."""
        status = self.status()
        s3, reader = status["s3"], status["reader"]
        return s3["connections"], s3["active"], reader["handles"], reader["waiters"]  # type: ignore[index]


def write_keys(path: Path, *credentials: Credential) -> None:
    path.touch(0o600)
    path.write_text("".join(each.table() for each in credentials))


@contextlib.contextmanager
def s3_served(
    url: str, folder: Path, *credentials: Credential, words: tuple[str, ...] = (), **options: str
) -> Iterator[S3Served]:
    """Serve S3 clients on a free port of this machine; by default they have one key for all."""
    daemon = S3Served(url, folder / "served", folder / "cache", **options)
    write_keys(daemon.keys, *(credentials or (ALL,)))
    address = () if "--listen" in words else ("--listen", "127.0.0.1:0")
    try:
        daemon.start(True, *address, "--keys", str(daemon.keys), *words)
        until(lambda: "keys" in daemon.status()["s3"])  # type: ignore[operator]
        yield daemon
    finally:
        daemon.clean_up()
