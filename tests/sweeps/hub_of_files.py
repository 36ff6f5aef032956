"""A stand-in for the Hub on this machine that gives out folders as models and data sets, as its client asks for them."""

from __future__ import annotations

import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "1" * 40


class _Handler(BaseHTTPRequestHandler):
    """Gives ``root/models/OWNER/NAME`` and ``root/datasets/OWNER/NAME``."""

    root: Path
    asked: list[str]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        _, kind, owner, name, *_ = self._parts()
        folder = self.root / kind / owner / name
        wanted = urllib.parse.parse_qs(body.decode()).get("paths", [])
        self._send(200, [_entry(folder, folder / path) for path in wanted if (folder / path).exists()])

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        parts = self._parts()
        if parts[:1] == ["api"] and len(parts) > 3:
            self._api(self.root / parts[1] / parts[2] / parts[3], parts[4:])
            return
        kind, parts = ("datasets", parts[1:]) if parts[:1] == ["datasets"] else ("models", parts)
        if len(parts) < 5 or parts[2] != "resolve":
            self._send(404, {})
            return
        folder = self.root / kind / parts[0] / parts[1]
        file = folder.joinpath(*parts[4:])
        if not file.is_file():
            self._send(
                404,
                {},
                {"X-Error-Code": "EntryNotFound" if folder.is_dir() else "RepoNotFound", "X-Repo-Commit": COMMIT},
            )
            return
        content = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        self._send(200, content, headers)

    def _api(self, folder: Path, rest: list[str]) -> None:
        if not folder.is_dir():
            self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif rest[:1] == ["tree"]:
            below = folder.joinpath(*rest[2:])
            found = sorted(below.rglob("*") if "recursive=true" in self.path.lower() else below.glob("*"))
            if below.is_dir():
                self._send(200, [_entry(folder, path) for path in found])
            else:
                self._send(404, {}, {"X-Error-Code": "EntryNotFound"})
        else:
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            siblings = [{"rfilename": str(path.relative_to(folder)), "size": path.stat().st_size} for path in files]
            name = "/".join(folder.parts[-2:])
            self._send(200, {"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings})

    def _parts(self) -> list[str]:
        return urllib.parse.unquote(urllib.parse.urlparse(self.path).path).strip("/").split("/")

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(folder))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    return {
        "type": "file",
        "path": name,
        "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
    }


@contextmanager
def hub_of(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Give the address of a stand-in for what lies below ``root``, and what was asked of it, while the block runs."""
    asked: list[str] = []
    handler = type("Handler", (_Handler,), {"root": root, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
