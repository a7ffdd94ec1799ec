"""The third-party platform of `digits-thirdparty`: the PyPI package ``digit-recognizer-py`` behind a small HTTP server.

Run by a Python that has the package on its path; nothing of ttca is imported. A PNG in the body comes in, and the
package's own probabilities of the ten digits go out.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch
from digit_recognizer import DigitRecognizer  # type: ignore[import-not-found, unused-ignore]

_MODEL = DigitRecognizer(device="cpu")


class _Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in one piece.
    wbufsize = -1

    def do_POST(self) -> None:
        status = 200
        try:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            said: dict[str, object] = {"probabilities": _MODEL.predict_proba(body)}
        except (OSError, ValueError) as error:
            status, said = 400, {"error": str(error)}
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing: a line per request would be all there is to see."""


class _Server(ThreadingHTTPServer):
    # Whoever asks opens many connections at once.
    request_queue_size = 256


def main() -> None:
    """Serve until standard input closes: whoever started this is gone."""
    torch.set_num_threads(1)
    server = _Server(("127.0.0.1", 0), _Answering)
    sys.stdout.write(f"http://127.0.0.1:{server.server_address[1]}\n")
    sys.stdout.flush()

    def watch() -> None:
        sys.stdin.read()
        # The main thread sits in the server's loop; nothing needs saving.
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
