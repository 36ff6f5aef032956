"""A stand-in for the Hub on this machine: the addresses its client calls for a pull request, and failures on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPOSITORY = "ada/evaluations"
TOKEN = "hf" + "_" + "stand1in" * 4
# Ways to fail: a status, or what happens to the connection, before the request is acted on or after.
DROP, DROP_AFTER, SILENT, NO_JSON = "drop", "drop after", "silent", "no json"


class Hub:
    """What the stand-in holds, what was asked of it, and how it fails next.

    Attributes:
        files: content of the main branch by path.
        requests: open pull requests: title, and content by path.
        failures: for each kind of request, how the next ones fail.
        calls: kinds of requests, in order.
        bodies: everything that was sent, for a search.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {".gitattributes": b""}
        self.requests: list[tuple[str, dict[str, bytes]]] = []
        self.storage: dict[str, bytes] = {}
        self.failures: dict[str, list[int | str]] = {}
        self.calls: list[str] = []
        self.bodies: list[bytes] = []
        self.lock = threading.Lock()
        self.released = threading.Event()

    def merge(self) -> None:
        """Merge every open pull request."""
        for _, files in self.requests:
            self.files |= files
        self.requests = []


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = urllib.parse.urlparse(self.path).path
        kind = _kind(path)
        with self.hub.lock:
            self.hub.calls.append(kind)
            self.hub.bodies.append(self.path.encode() + b"\n" + body)
            waiting = self.hub.failures.get(kind)
            failure = waiting.pop(0) if waiting else None
        if failure == SILENT:
            self.hub.released.wait(30)
        if failure in (DROP, SILENT):
            self.close_connection = True
            return
        if isinstance(failure, int):
            self._send(failure, {"error": f"scripted {failure}"}, {"Retry-After": "0"} if failure == 429 else {})
            return
        if failure == NO_JSON:
            self._send(200, None, {}, b"<html>proxy</html>")
            return
        if kind != "storage" and self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid username or password."}, {})
            return
        with self.hub.lock:
            status, content = getattr(self, f"_{kind}")(path, body)
        if failure == DROP_AFTER:
            self.close_connection = True
            return
        self._send(status, content, {})

    def _send(self, status: int, content: Any, headers: dict[str, str], raw: bytes | None = None) -> None:
        data = raw if raw is not None else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Type": "application/json", "Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _discussions(self, path: str, body: bytes) -> tuple[int, Any]:
        found = [
            {
                "title": title,
                "num": number,
                "author": {"name": "ada"},
                "createdAt": "2026-11-27T00:00:00.000Z",
                "status": "open",
                "repo": {"name": REPOSITORY, "type": "dataset"},
                "isPullRequest": True,
            }
            for number, (title, _) in enumerate(self.hub.requests, start=1)
        ]
        return 200, {"discussions": found, "count": len(found), "start": 0}

    def _paths(self, path: str, body: bytes) -> tuple[int, Any]:
        asked = urllib.parse.parse_qs(body.decode()).get("paths", [])
        return 200, [
            {"type": "file", "path": name, "size": len(self.hub.files[name]), "oid": "0" * 40}
            for name in asked
            if name in self.hub.files
        ]

    def _yaml(self, path: str, body: bytes) -> tuple[int, Any]:
        return 200, {"errors": [], "warnings": []}

    def _preupload(self, path: str, body: bytes) -> tuple[int, Any]:
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(".gz") else "regular"
            old = self.hub.files.get(file["path"])
            oid = None if old is None else _oid(old, mode)
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return 200, {"files": files}

    def _lfs(self, path: str, body: bytes) -> tuple[int, Any]:
        address = f"http://{self.headers['host']}/storage/"
        objects = []
        for wanted in json.loads(body)["objects"]:
            actions = {} if wanted["oid"] in self.hub.storage else {"upload": {"href": address + wanted["oid"]}}
            objects.append({"oid": wanted["oid"], "size": wanted["size"]} | ({"actions": actions} if actions else {}))
        return 200, {"transfer": "basic", "objects": objects}

    def _storage(self, path: str, body: bytes) -> tuple[int, Any]:
        oid = path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "wrong digest"}
        self.hub.storage[oid] = body
        return 200, {}

    def _commit(self, path: str, body: bytes) -> tuple[int, Any]:
        header, *operations = [json.loads(line) for line in body.splitlines()]
        files = {}
        for operation in operations:
            value = operation["value"]
            is_stored = operation["key"] == "lfsFile"
            files[value["path"]] = self.hub.storage[value["oid"]] if is_stored else base64.b64decode(value["content"])
        assert "create_pr=1" in self.path, "never straight to the main branch"
        self.hub.requests.append((header["value"]["summary"], files))
        url = f"http://{self.headers['host']}/datasets/{REPOSITORY}"
        number = len(self.hub.requests)
        return 200, {
            "commitUrl": f"{url}/commit/{number:040x}",
            "commitOid": f"{number:040x}",
            "pullRequestUrl": f"{url}/discussions/{number}",
        }

    def _info(self, path: str, body: bytes) -> tuple[int, Any]:
        return 200, {"id": REPOSITORY, "sha": "0" * 40, "private": False, "tags": [], "downloads": 0, "likes": 0}


def _kind(path: str) -> str:
    for mark, kind in (
        ("/discussions", "discussions"),
        ("/paths-info/", "paths"),
        ("/validate-yaml", "yaml"),
        ("/preupload/", "preupload"),
        ("/info/lfs/", "lfs"),
        ("/storage/", "storage"),
        ("/commit/", "commit"),
    ):
        if mark in path:
            return kind
    return "info"


def _oid(content: bytes, mode: str) -> str:
    if mode == "lfs":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def running_hub() -> Iterator[tuple[Hub, str]]:
    """Give a stand-in and its address while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    # Its end is looked for so often that no test waits for it.
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
