from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from paka import wandb_server


@contextmanager
def serving(status: int, answer: Any) -> Iterator[str]:
    """A server on this machine that answers everything the same way."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_the_server_refuses(status: int) -> None:
    with serving(status, {"errors": []}) as url:
        assert wandb_server.refusal(url, "wrong", 5) == f"{url} does not know the key"
        assert wandb_server.refusal(url, None, 5) == ""


def test_a_key_that_belongs_to_nobody() -> None:
    with serving(200, {"data": {"viewer": None}}) as url:
        assert wandb_server.refusal(url, "wrong", 5) == f"{url} does not know the key"


@pytest.mark.parametrize(
    ("status", "answer"), [(200, {"data": {"viewer": {"id": "a"}}}), (500, {}), (200, "?")]
)
def test_what_is_unclear_is_left_to_the_client(status: int, answer: Any) -> None:
    with serving(status, answer) as url:
        assert wandb_server.refusal(url, "right", 5) == ""


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    reason = wandb_server.refusal(url, "key", 5)
    assert reason == f"{url} cannot be reached (Connection refused)"


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert wandb_server.refusal(url, "key", 0.2) == f"{url} does not answer within 0.2 s"
        assert time.monotonic() - began < 2


def test_a_server_of_something_else() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        url = f"http://127.0.0.1:{other.getsockname()[1]}"

        def answer() -> None:
            connection = other.accept()[0]
            connection.recv(65536)
            connection.sendall(b"SSH-2.0-server\r\n")
            connection.close()

        answering = threading.Thread(target=answer)
        answering.start()
        assert wandb_server.refusal(url, "key", 5) == f"{url} gives an answer that is not HTTP"
        answering.join()


def test_names_that_take_long_to_resolve_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*args: object, **kwargs: object) -> None:
        time.sleep(3)
        raise TimeoutError  # in a thread that outlives this test

    monkeypatch.setattr(wandb_server, "urlopen", slow)
    began = time.monotonic()
    assert wandb_server.refusal("http://slow.invalid", "key", 0.1).endswith("does not answer within 0.1 s")
    assert time.monotonic() - began < 2


def test_where_keys_are_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    own, cloud = "https://wandb.example", "https://api.forge.coreweave.com"
    assert wandb_server.key_for(own) is None
    netrc = tmp_path / ".netrc"
    netrc.write_text(
        "machine wandb.example login user password one\nmachine api.wandb.ai login user password two\n"
    )
    netrc.chmod(0o600)
    assert wandb_server.key_for(own) == "one"
    assert wandb_server.key_for(cloud) == "two"  # the same service under another name
    assert wandb_server.key_for("https://other.example") is None
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    assert wandb_server.key_for(own) is None
    monkeypatch.setenv("WANDB_API_KEY", "three")
    assert wandb_server.key_for(own) == "three"
