"""An S3 server on loopback that can be made unreachable and reachable again."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class ObjectStore:
    """A server that keeps its data in memory, and a relay in front of it to open and close."""

    def __init__(self) -> None:
        inner = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(inner)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{inner}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the S3 server did not start"
                assert self.process.poll() is None, "the S3 server ended"
                time.sleep(0.1)
        self.relay = Relay(inner)

    def uri(self, path: str) -> str:
        options = f"endpoint_override=127.0.0.1:{self.relay.port}&scheme=http"
        return f"s3://{path}?{options}&allow_bucket_creation=true"

    def stop(self) -> None:
        self.relay.close()
        self.process.kill()
        self.process.wait()


class Relay:
    """A port in front of a server's. While it is closed, connections break and are refused."""

    def __init__(self, target: int) -> None:
        self.target, self.port = target, 0
        self.connections: set[socket.socket] = set()
        self.listener: socket.socket | None = None
        self.open()

    def open(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()

    def close(self) -> None:
        ends, self.connections = self.connections, set()
        for end in [self.listener, *ends]:
            with contextlib.suppress(OSError):
                # Closing alone does not wake a thread that waits in accept or recv.
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        """Serves one connection until both of its ends are closed."""
        with near:
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return  # the server is too busy: this connection breaks
            with far:
                self.connections.update((near, far))
                back = threading.Thread(target=self._copy, args=(far, near), daemon=True)
                back.start()
                self._copy(near, far)
                back.join()
                self.connections.difference_update((near, far))

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(65536):
                sink.sendall(content)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Sets its credentials in the environment of this process and its children."""
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    store = ObjectStore()
    try:
        yield store
    finally:
        store.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
