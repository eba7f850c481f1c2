"""A page of somebody else, at another port of this machine."""

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_suffix(".html")


@contextlib.contextmanager
def serve_foreign_page(**targets: Any) -> Iterator[str]:
    """The page's address; it sends requests to the targets as soon as it is opened."""
    content = PAGE.read_text().replace("TARGETS;", f"{json.dumps(targets)};").encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is http.server's
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
