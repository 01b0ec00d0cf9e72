"""A stand-in for the hub, which cannot be reached from here: it takes uploads as the real client sends them.

In: requests of `huggingface_hub` (create-repo, validate-yaml, preupload, LFS objects, commit), at an address of this
machine. Out: the files of each data set as they would lie on the hub. Parquet files are asked for as LFS objects, all
others within the commit, as the hub does. It checks what the hub checks: the token, rights in a namespace, the licence
of a card, and that an object has the digest and the size that it is announced with.

Source: the client's own code, huggingface_hub 2.4 (`hf_api.py`, `_commit_api.py`, `lfs.py`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_of_nobody"
OWN = "org"
"""The namespace in which the token may write."""
LICENSES = ("apache-2.0", "mit", "unknown")


class Hub(ThreadingHTTPServer):
    """files: of each data set, by path. commits: their messages. objects: by SHA-256. private: names of data sets."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.private: set[str] = set()


@contextmanager
def hub() -> Iterator[Hub]:
    """One that runs while the block does."""
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/api/datasets/")
        self._say(*((200, {"id": name, "sha": "0" * 40}) if name in self.server.files else (404, {"error": "none"})))

    def do_PUT(self) -> None:
        body, digest = self._body(), self.path.removeprefix("/objects/")
        good = hashlib.sha256(body).hexdigest() == digest
        if good:
            self.server.objects[digest] = body
        self._say(200 if good else 400, {})

    def do_POST(self) -> None:
        body, path = self._body(), self.path.split("?")[0]
        if path == "/api/validate-yaml":
            self._validate(json.loads(body))
        elif self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._say(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".parquet") else "regular" for name in files}
            about = [{"path": name, "uploadMode": modes[name], "shouldIgnore": False} for name in files]
            self._say(200, {"files": about})
        elif path.endswith(".git/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            actions = [{"upload": {"href": f"{self.server.url}/objects/{one['oid']}"}} for one in wanted]
            answers = [{**one, "actions": action} for one, action in zip(wanted, actions, strict=True)]
            self._say(200, {"transfer": "basic", "objects": answers})
        elif path.endswith("/commit/main"):
            self._commit(path.removeprefix("/api/datasets/").removesuffix("/commit/main"), body)
        else:
            self._say(404, {"error": f"{path} is not spoken here"})

    def _create(self, asked: dict[str, Any]) -> None:
        assert asked["type"] == "dataset"
        name = f"{asked['organization'] or OWN}/{asked['name']}"
        if asked["organization"] not in (None, OWN):
            rights = f'You don\'t have the rights to create a dataset under the namespace "{asked["organization"]}"'
            return self._say(403, {"error": rights})
        known = name in self.server.files
        if asked.get("visibility") == "private":
            self.server.private.add(name)
        self.server.files.setdefault(name, {})
        self._say(409 if known else 200, {"url": f"{self.server.url}/datasets/{name}"})

    def _validate(self, asked: dict[str, Any]) -> None:
        front = yaml.safe_load(asked["content"].split("---\n")[1])
        known = front["license"] in LICENSES
        errors = [] if known else [{"message": f'"license" must be one of {list(LICENSES)}'}]
        self._say(200 if known else 400, {"errors": errors, "warnings": []})

    def _commit(self, name: str, body: bytes) -> None:
        header, *lines = [json.loads(line) for line in body.splitlines()]
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.server.objects[value["oid"]]
                assert len(files[value["path"]]) == value["size"]
        self.server.files[name] |= files
        self.server.commits.append(header["value"]["summary"])
        address = f"{self.server.url}/datasets/{name}/commit/{len(self.server.commits):040d}"
        self._say(200, {"commitUrl": address, "commitOid": address[-40:]})

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _say(self, status: int, said: dict[str, Any]) -> None:
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
