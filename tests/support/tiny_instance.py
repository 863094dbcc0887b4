"""A tiny instance: answers GET on `ODOO_HTTP_PORT`, and behaves as its environment says.

`TINY_STATUS` the status that it answers (200); `TINY_ANSWERS` exit 3 after so many answers; `TINY_DEAF=1` ignore
SIGTERM; `TINY_CRASHES` (exit 255 in the first so many starts, counted in the instance's directory);
`TINY_SLOW` seconds before it listens; `TINY_ADDRESS` where it listens (127.0.0.1).
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

SERVING = "serving"

answered = 0


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        global answered  # noqa: PLW0603, each request has a new handler
        answered += 1
        self.send_response(int(os.environ.get("TINY_STATUS", "200")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(HTTPServer):
    allow_reuse_port = True


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "TINY_DEAF" in os.environ else signal.SIG_DFL)
    starts = Path(os.environ["INSTANCE_DIR"]) / "starts"
    with starts.open("a") as file:
        file.write("start\n")
    if len(starts.read_text().splitlines()) <= int(os.environ.get("TINY_CRASHES", "0")):
        say("odoo.conf is missing")
        return 255
    time.sleep(float(os.environ.get("TINY_SLOW", "0")))
    server = Server((os.environ.get("TINY_ADDRESS", "127.0.0.1"), int(os.environ["ODOO_HTTP_PORT"])), Answer)
    say(SERVING)
    limit = int(os.environ.get("TINY_ANSWERS", "0"))
    while not limit or answered < limit:
        server.handle_request()
    return 3


if __name__ == "__main__":
    sys.exit(main())
