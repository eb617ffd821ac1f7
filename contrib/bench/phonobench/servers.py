"""The servers: the origin, and nginx before it where bytes are to come as fast as they can."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from phonobench.processes import Failed, end, start, tail, until
from phonobench.things import Thing, save

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin's address, and how it is told what to do."""

    port: int
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        """Without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def set(
        self, latency_s: float, bytes_per_s: float = 0, window: int = 0, *, told: bool = True
    ) -> None:
        """Change its speeds, and let its counters begin anew. ``told``: pages have a ``total``."""
        speeds = f"latency_s={latency_s}&bytes_per_s={bytes_per_s}&window={window}"
        self._ask(f"set?{speeds}&told={told}")

    def stats(self) -> dict[str, Any]:
        """Requests by kind, and bytes sent by object, since ``set``."""
        found: dict[str, Any] = json.loads(self._ask("stats"))
        return found

    def _ask(self, what: str) -> bytes:
        with urlopen(f"{self.url}/-/{what}", timeout=10) as answer:
            body: bytes = answer.read()
        return body


@contextmanager
def origin(root: Path, things: list[Thing], logs: Path) -> Iterator[Origin]:
    """The origin over the bytes in ``root``."""
    listing = root / "things.json"
    save(things, listing)
    with _origin(["--root", str(root), "--things", str(listing)], logs) as server:
        yield server


@contextmanager
def many(counts: Sequence[int], work: Path) -> Iterator[Origin]:
    """The origin over so many objects on each day, without bytes."""
    file = work / f"{sum(counts)}.json"
    file.write_text(json.dumps(list(counts)))
    with _origin(["--counts", str(file)], work) as server:
        yield server


@contextmanager
def _origin(words: list[str], logs: Path) -> Iterator[Origin]:
    log = logs / "origin.log"
    command = [sys.executable, "-m", "phonobench.origin", *words]
    process = start(command, log, stdout=subprocess.PIPE)
    try:
        line = process.stdout.readline() if process.stdout else ""
        if not line.strip().isdigit():
            raise Failed(f"the origin did not start: {tail(log)}")
        yield Origin(int(line), process)
    finally:
        end(process)


CONFIG = """
daemon off; worker_processes {workers}; error_log stderr warn; pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000;
  sendfile_max_chunk 4m; default_type audio/mpeg;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};{tls}
    location ~ ^/storage/[^/]+/v3/objects/([^/]+)/content$ {{ alias {root}/id/$1; }}
    location /files/ {{ alias {root}/tree/; autoindex on; }}
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""


@contextmanager
def nginx(root: Path, behind: Origin, logs: Path, tls: tuple[Path, Path] | None = None,
          ) -> Iterator[str]:  # fmt: skip
    """nginx over the bytes in ``root``, all else from the origin; its address.

    Where there is no nginx, the origin's own. ``tls`` is a certificate and its key.
    """
    if NGINX is None:
        yield behind.url
        return
    folder = root / ("nginx-tls" if tls else "nginx")
    folder.mkdir()
    port = free_port()
    lines = "" if tls is None else f"\n    ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};"
    text = CONFIG.format(folder=folder, origin=behind.port, root=root, tls=lines,
                         port=f"{port} ssl" if tls else port, workers=os.cpu_count())  # fmt: skip
    if os.geteuid() == 0:  # its workers would otherwise be others, who cannot enter our folder
        text = f"user root;\n{text}"
    (folder / "nginx.conf").write_text(text)
    log = logs / "nginx.log"
    process = start([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], log)
    try:
        until(lambda: listens(port), process, "nginx did not start", log)
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        end(process)


@contextmanager
def s3_server(logs: Path) -> Iterator[str]:
    """A local S3 server that keeps objects in memory; its address."""
    port, log = free_port(), logs / "s3.log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = start(command, log)
    try:
        until(lambda: listens(port), process, "the S3 server did not start", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def free_port() -> int:
    """A port of the loopback nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def version() -> str:
    """``nginx 1.22.1``, or that there is none."""
    if NGINX is None:
        return "no nginx"
    done = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=False)
    return done.stderr.strip().rpartition(": ")[2].replace("/", " ")
