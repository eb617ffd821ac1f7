"""A company's proxy before the fake service: CONNECT, a password, TLS interception.

The proxy decrypts the traffic and encrypts it anew, as proxies do that inspect it: it presents a
certificate of its own authority for the requested host. No one else resolves the names of these
hosts, so every request that reaches the fake service came through the proxy.
"""

import base64
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import trio

from tests.support.authority import Authority
from tests.support.counted_service import Service
from tests.support.mounts import StandIn

HOST = "127.0.0.1"
API = "api.phonofs.test"
STORE = "store.phonofs.test"
LARGEST_HEAD = 1 << 14


class CompanyProxy:
    """The proxy.

    Owns the counts: ``connects`` by requested host, and ``refused`` requests without the password.
    ``environment`` has the variables that a program needs to use the proxy.
    """

    def __init__(self, authority: Authority, password: str = "") -> None:
        self.connects: Counter[str] = Counter()
        self.refused = 0
        self.environment: dict[str, str] = {}
        self._authority = authority
        self._password = password
        self._contexts = {host: authority.server(host) for host in (API, STORE)}

    @asynccontextmanager
    async def before(self, service: Service) -> AsyncIterator[None]:
        """Serve in front of a service until the block ends; its URLs have public names."""
        ports = {
            API: int(service.url.rpartition(":")[2]),
            STORE: int(service.store_url.rpartition(":")[2]),
        }
        service.url, service.store_url = f"https://{API}", f"https://{STORE}"
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host=HOST)
            port = listener.socket.getsockname()[1]
            who = f"worker:{self._password}@" if self._password else ""
            self.environment = {
                "HTTPS_PROXY": f"http://{who}{HOST}:{port}",
                "SSL_CERT_FILE": str(self._authority.file),
            }

            async def handler(client: trio.SocketStream) -> None:
                with contextlib.suppress(trio.BrokenResourceError, ssl.SSLError, OSError):
                    async with client:
                        await self._tunnel(client, ports)

            nursery.start_soon(trio.serve_listeners, handler, [listener])
            yield
            nursery.cancel_scope.cancel()

    async def _tunnel(self, client: trio.SocketStream, ports: Mapping[str, int]) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = await client.receive_some(LARGEST_HEAD)
            if not data or len(head) > LARGEST_HEAD:
                return
            head += data
        method, place = head.decode("latin-1").split(" ")[:2]
        host = place.rpartition(":")[0]
        given = base64.b64encode(f"worker:{self._password}".encode())
        if self._password and given not in head:
            self.refused += 1
            await client.send_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b'Proxy-Authenticate: Basic realm="company"\r\nContent-Length: 0\r\n\r\n'
            )
            return
        self.connects[host] += 1
        if method != "CONNECT" or host not in ports:
            await client.send_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        else:
            await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            inside = trio.SSLStream(client, self._contexts[host], server_side=True)
            await self._relay(inside, ports[host])

    @staticmethod
    async def _relay(inside: trio.SSLStream[trio.SocketStream], port: int) -> None:
        async with await trio.open_tcp_stream(HOST, port) as server, trio.open_nursery() as nursery:

            async def forward(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while data := await source.receive_some():
                        await sink.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(forward, inside, server)
            nursery.start_soon(forward, server, inside)


class ProxiedStandIn(StandIn):
    """A fake service in a thread that can be reached only through ``proxy``."""

    proxy: CompanyProxy

    def beside(self, service: Service) -> contextlib.AbstractAsyncContextManager[None]:
        """Run the proxy in the service's thread."""
        return self.proxy.before(service)
