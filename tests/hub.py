"""A hub of models that really works: it answers what ``huggingface_hub`` asks, from folders."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "1" * 40


@contextmanager
def hub(models: Mapping[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serves folders as repositories, by their names on the hub.

    Yields:
        The address, for ``HF_ENDPOINT``, and the paths that were fetched whole.
    """
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *values: object) -> None:
            """Keeps quiet."""

        def do_HEAD(self) -> None:
            self._answer(whole=False)

        def do_GET(self) -> None:
            self._answer(whole=True)

        def _answer(self, *, whole: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            for name, folder in models.items():
                files = sorted(p for p in folder.rglob("*") if p.is_file())
                names = [str(p.relative_to(folder)) for p in files]
                if path.startswith(f"/api/models/{name}/revision/"):
                    siblings = [{"rfilename": one} for one in names]
                    listed = {"id": name, "sha": COMMIT, "siblings": siblings}
                    self._send(json.dumps(listed).encode(), "application/json", whole)
                    return
                if path.startswith(f"/api/models/{name}/tree/"):
                    tree = [
                        {"type": "file", "path": one, "size": p.stat().st_size, "oid": _sha(p)}
                        for one, p in zip(names, files, strict=True)
                    ]
                    self._send(json.dumps(tree).encode(), "application/json", whole)
                    return
                start = f"/{name}/resolve/"
                if path.startswith(start):
                    wanted = path[len(start) :].partition("/")[2]
                    if wanted in names:
                        if whole:
                            fetched.append(f"{name}/{wanted}")
                        content = (folder / wanted).read_bytes()
                        self._send(content, "application/octet-stream", whole)
                        return
                    break
            self.send_response(404)
            known = any(f"/{name}/" in path for name in models)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _send(self, content: bytes, kind: str, whole: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if whole:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", fetched
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _sha(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()  # as the hub names contents
