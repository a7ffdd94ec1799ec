"""A Hugging Face hub on loopback, as much of it as ``datasets.load_dataset`` asks for one repository."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_COMMIT = "1".rjust(40, "0")


@contextmanager
def serve_repository(repo: str, config: str, folder: Path) -> Iterator[str]:
    """Serve the parquet files of ``folder`` as ``<repo>/<config>/`` and yield the hub's URL."""
    files = {f"{config}/{path.name}": path.read_bytes() for path in sorted(folder.glob("*.parquet"))}
    splits = sorted({Path(name).name.split("-")[0] for name in files})
    card = [{"split": split, "path": f"{config}/{split}-*"} for split in splits]
    # JSON is YAML: the card's header needs no YAML writer.
    header = json.dumps({"configs": [{"config_name": config, "data_files": card}]})
    files["README.md"] = f"---\n{header}\n---\n".encode()

    class Hub(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if "/resolve/" in path:
                name = path.split("/resolve/")[1].partition("/")[2]
                self.answer(files.get(name))
            elif "/tree/" in path:
                self.answer(json.dumps(_tree(files, path.split("/tree/")[1].partition("/")[2])).encode())
            elif path.startswith(f"/api/datasets/{repo}"):
                about = {"id": repo, "sha": _COMMIT, "private": False, "gated": False, "disabled": False}
                listed = {"tags": [], "downloads": 0, "likes": 0, "siblings": [{"rfilename": f} for f in files]}
                self.answer(json.dumps({**about, **listed}).encode())
            else:
                self.answer(None)

        do_HEAD = do_GET

        def answer(self, body: bytes | None) -> None:
            self.send_response(404 if body is None else 200)
            if body is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", _COMMIT)
            self.send_header("ETag", f'"{hashlib.sha1(body or b"").hexdigest()}"')
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            """Keep the tests' output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _tree(files: dict[str, bytes], folder: str) -> list[dict[str, Any]]:
    """Return what stands directly in ``folder``, as the hub lists it."""
    start = f"{folder}/" if folder else ""
    inside = {name[len(start) :]: body for name, body in files.items() if name.startswith(start)}
    listed: list[dict[str, Any]] = [
        {
            "type": "file",
            "path": start + name,
            "size": len(body),
            "oid": hashlib.sha1(body).hexdigest(),
        }
        for name, body in inside.items()
        if "/" not in name
    ]
    folders = sorted({name.split("/")[0] for name in inside if "/" in name})
    return listed + [{"type": "directory", "path": start + name, "size": 0, "oid": "0" * 40} for name in folders]
