"""A little Hub on 127.0.0.1: the routes that huggingface_hub asks for a model, and no more."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class StandInHub:
    """What it serves, what it was asked, and how it misbehaves."""

    repository: str = "someone/whisper"
    files: dict[str, bytes] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    cut: str | None = None  # the file whose connection breaks in the middle
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def fetched(self) -> set[str]:
        """The files that were asked for, apart from what they are."""
        return {line.rpartition("/")[2] for line in self.asked if line.startswith("GET file")}


@contextmanager
def serving(hub: StandInHub) -> Iterator[StandInHub]:
    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    served: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.served, unquote(urlsplit(self.path).path)
        api = f"/api/models/{hub.repository}"
        if path == api:
            return self._info("main")
        if path.startswith(f"{api}/revision/"):
            return self._info(path.removeprefix(f"{api}/revision/"))
        if path.startswith(f"{api}/tree/"):
            return self._tree()
        if path.startswith(f"/{hub.repository}/resolve/"):
            return self._file(path.split("/", 5)[5])
        return self._refuse("RepoNotFound")

    def _info(self, revision: str) -> None:
        hub = self.served
        commit = hub.revisions.get(revision, revision)
        if commit not in hub.revisions.values():
            return self._refuse("RevisionNotFound")
        siblings = [{"rfilename": name} for name in hub.files]
        return self._json({"id": hub.repository, "sha": commit, "siblings": siblings})

    def _tree(self) -> None:
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
            for name, content in self.served.files.items()
        ]
        self._json(entries)

    def _file(self, name: str) -> None:
        hub = self.served
        hub.asked.append(f"{self.command} file /{name}")
        if name not in hub.files:
            return self._refuse("EntryNotFound")
        content = hub.files[name]
        headers = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT}
        if name == hub.cut and self.command == "GET":
            if hub.asked.count(f"GET file /{name}") > 1:
                return self._refuse("Broken", status=500)
            self._start(200, {**headers, "Content-Length": str(len(content))})
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return None
        return self._send(200, content, headers)

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, code: str, status: int = 404) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self._start(status, {**headers, "Content-Length": str(len(content))})
        if self.command != "HEAD":
            self.wfile.write(content)

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
