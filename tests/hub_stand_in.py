"""A small Hub on 127.0.0.1, with only the routes that load a model or a dataset."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
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
    kind: str = "models"  # or "datasets"
    url: str = ""

    @property
    def place(self) -> str:
        """The repository's own place in addresses that are not the API's."""
        return f"/{self.repository}" if self.kind == "models" else f"/{self.kind}/{self.repository}"

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

    def do_POST(self) -> None:
        """``paths-info``, which asks after some files or folders by their names."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._json([each for each in self._entries() if each["path"] in asked["paths"]])

    def do_GET(self) -> None:
        hub, path = self.served, unquote(urlsplit(self.path).path)
        api = f"/api/{hub.kind}/{hub.repository}"
        if path == api:
            return self._info("main")
        if path.startswith(f"{api}/revision/"):
            return self._info(path.removeprefix(f"{api}/revision/"))
        if path.startswith(f"{api}/tree/"):
            folder = path.removeprefix(f"{api}/tree/").partition("/")[2]
            return self._json([e for e in self._entries() if _is_within(str(e["path"]), folder)])
        if path.startswith(f"{hub.place}/resolve/"):
            return self._file(path.removeprefix(f"{hub.place}/resolve/").partition("/")[2])
        return self._refuse("RepoNotFound")

    def _info(self, revision: str) -> None:
        hub = self.served
        commit = hub.revisions.get(revision, revision)
        if commit not in hub.revisions.values():
            return self._refuse("RevisionNotFound")
        siblings = [{"rfilename": name} for name in hub.files]
        return self._json({"id": hub.repository, "sha": commit, "siblings": siblings})

    def _entries(self) -> list[Mapping[str, object]]:
        """The files, and the folders that they are in."""
        files = self.served.files
        folders = {str(folder) for name in files for folder in PurePosixPath(name).parents} - {"."}
        return [
            *({"type": "directory", "path": name, "oid": "0"} for name in sorted(folders)),
            *(
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in files.items()
            ),
        ]

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


def _is_within(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
