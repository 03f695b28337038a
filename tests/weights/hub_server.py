"""A small Hugging Face hub on this machine: the requests that `huggingface_hub` makes for a download, and faults."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS = (".safetensors", ".bin", ".spm", ".model", ".h5")  # stored apart, under their sha256


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main",)
    gated: bool = False

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()

    def etag(self, name: str) -> str:
        content = self.files[name]
        return hashlib.sha256(content).hexdigest() if name.endswith(LFS) else blob_id(content)


@dataclass
class Hub:
    """What is served, how it misbehaves, and what was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    url: str = ""
    status: int = 0  # answer everything with this
    cut: dict[str, list[int]] = field(default_factory=dict)  # name -> bytes after which to hang up
    swap: dict[str, bytes] = field(default_factory=dict)  # name -> what is sent in its place
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range

    def downloads(self) -> list[str]:
        return [
            path.rpartition("/")[2]
            for method, path, _ in self.asked
            if method == "GET" and "/api/" not in path
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if self.hub.status:
            return self.fail(self.hub.status, "")
        if m := re.fullmatch(r"/api/models/([\w.-]+(?:/[\w.-]+)?)/revision/(.+)", path):
            return self.info(m[1], m[2])
        if m := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/tree/([^/]+)", path):
            return self.tree(m[1], m[2])
        if m := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(m[1], m[2], m[3])
        if m := re.fullmatch(r"/cdn/([\w.-]+/[\w.-]+)/(.+)", path):
            return self.content(m[1], m[2], {})
        return self.fail(404, "")

    def find(self, name: str, revision: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None:
            self.fail(404, "RepoNotFound")
        elif found.gated:
            self.fail(403, "GatedRepo")
        elif revision not in (*found.branches, found.commit):
            self.fail(404, "RevisionNotFound")
        else:
            return found
        return None

    def info(self, name: str, revision: str) -> None:
        if found := self.find(name, revision):
            siblings = [
                {"rfilename": n, "size": len(c), "blobId": blob_id(c)}
                for n, c in found.files.items()
            ]
            said = {
                "_id": "1",
                "id": name,
                "modelId": name,
                "sha": found.commit,
                "siblings": siblings,
            }
            self.send(200, json.dumps(said).encode())

    def tree(self, name: str, revision: str) -> None:
        if found := self.find(name, revision):
            rows = []
            for n, c in found.files.items():
                row = {"type": "file", "path": n, "size": len(c), "oid": blob_id(c)}
                if n.endswith(LFS):
                    row["lfs"] = {"oid": found.etag(n), "size": len(c), "pointerSize": 134}
                rows.append(row)
            self.send(200, json.dumps(rows).encode())

    def resolve(self, name: str, revision: str, file: str) -> None:
        found = self.find(name, revision)
        if found is None:
            return
        if file not in found.files:
            return self.fail(404, "EntryNotFound")
        headers = {"X-Repo-Commit": found.commit, "ETag": f'"{found.etag(file)}"'}
        if file.endswith(LFS):
            headers |= {
                "X-Linked-Etag": f'"{found.etag(file)}"',
                "X-Linked-Size": str(len(found.files[file])),
                "Location": f"{self.hub.url.replace('127.0.0.1', 'localhost')}/cdn/{name}/{file}",
            }
            return self.send(302, b"", headers)
        return self.content(name, file, headers)

    def content(self, name: str, file: str, headers: dict[str, str]) -> None:
        content = self.hub.swap.get(file, self.hub.repositories[name].files[file])
        status, start = 200, 0
        if m := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            status, start = 206, int(m[1])
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cuts = self.hub.cut.get(file, [])
        stop = cuts.pop(0) if cuts and self.command == "GET" else None
        self.send(status, content[start:], headers, stop)

    def fail(self, status: int, code: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code} if code else {})

    def send(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        stop: int | None = None,
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:stop])
        self.close_connection = stop is not None


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
