"""A server in a thread that sends whatever a test says, with or without TLS.

:class:`Stretches` measures the CPU time of the test's thread, so the server's is not counted.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

Answer = Callable[[Any, bytes, int], bool]
"""Takes the socket, the request and its number; returns whether to keep the connection."""

OK = b"HTTP/1.1 200 OK\r\n"


class HostileServer:
    """Answers each request by ``answer``; keeps the request heads and counts the connections."""

    def __init__(self, answer: Answer, context: ssl.SSLContext | None) -> None:
        self._answer = answer
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http{'s' if self._context else ''}://localhost:{self.port}"

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                break
            self.connections += 1
            self._open.append(sock)
            threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(10)

    def _serve(self, raw: socket.socket) -> None:
        sock = raw
        with contextlib.suppress(OSError):
            if self._context is not None:
                sock = self._context.wrap_socket(raw, server_side=True)
                self._open.append(sock)
            while (request := _request(sock)) is not None:
                self.requests.append(request)
                if not self._answer(sock, request, len(self.requests)):
                    break
        with contextlib.suppress(OSError):
            sock.close()


def _request(sock: socket.socket) -> bytes | None:
    """Read one request, with its body if the head states the length."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(65536)
        if not data:
            return None
        head += data
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(head.partition(b"\r\n\r\n")[2]) < length:
        head += sock.recv(65536)
    return head


@contextlib.contextmanager
def hostile(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[HostileServer]:
    server = HostileServer(answer, context)
    try:
        yield server
    finally:
        server.close()


def sent_with_its_end(sock: socket.socket, data: bytes) -> bool:
    """Send the data so that the end of the connection arrives with the last bytes."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    sock.sendall(data)
    return False
