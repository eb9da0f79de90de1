"""A W&B server of a few answers, on the loopback: enough to open a run, fill it and save a view."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef" * 3
ENTITY = "lab"


class Server:
    """What was told and asked so far."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.views: list[dict[str, Any]] = []
        self.uploads: set[str] = set()
        self.artifacts: list[str] = []
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": self.url}

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        if "upsertBucket" in query:
            return {"upsertBucket": {"bucket": self._bucket(given), "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": f, "uploadUrl": f"{self.url}/up/{f}"} for f in given["files"]]
            return {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}
        if "createArtifact(" in query:
            self.artifacts.append(given["input"]["artifactCollectionName"])
            # Committed: the server has its files already, so none are sent.
            artifact = {
                "id": "a",
                "state": "COMMITTED",
                "artifactSequence": {"latestArtifact": None},
            }
            return {"createArtifact": {"artifact": artifact}}
        if "upsertView" in query:
            self.views.append(given)
            return {"upsertView": {"view": {"id": "view", "name": given["name"]}, "inserted": True}}
        if "viewer" in query:
            viewer = {"id": "u", "username": ENTITY, "email": "", "entity": ENTITY, "flags": "{}"}
            return {"viewer": {**viewer, "teams": {"edges": []}}}
        return {}

    def _bucket(self, given: dict[str, Any]) -> dict[str, Any]:
        known = self.runs.setdefault(given["name"], {})
        known |= {key: value for key, value in given.items() if value is not None}
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": ENTITY}}
        shown = {key: known.get(key) for key in ("name", "displayName")}
        empty = dict.fromkeys(("description", "config", "sweepName"))
        return {"id": "run", **shown, **empty, "historyLineCount": 0, "project": project}

    def stream(self, path: str, content: dict[str, Any]) -> None:
        rows = (content.get("files") or {}).get("wandb-history.jsonl", {}).get("content", [])
        self.history.setdefault(path.split("/")[-2], []).extend(map(json.loads, rows))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def _send(self, content: Any) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def do_GET(self) -> None:
                self._send({})

            def do_PUT(self) -> None:
                self._body()
                server.uploads.add(self.path.removeprefix("/up/"))
                self._send({})

            def do_POST(self) -> None:
                body = self._body()
                if self.path == "/graphql":
                    asked = json.loads(body)
                    self._send(
                        {"data": server.answer(asked["query"], asked.get("variables") or {})}
                    )
                    return
                if self.path.endswith("/file_stream"):
                    server.stream(self.path, json.loads(body))
                self._send({"exitcode": None, "limits": {}})

        return Handler


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    try:
        yield server
    finally:
        server.stop()
