"""A client inside the overlay network: sends requests to a service by its name, and records the answers.

    python prober.py HOST PORT DIRECTORY

Writes `DIRECTORY/answers`, one line for each request: `ok`, or what failed. Every request has a new connection.
"""

import sys
import time
import urllib.request
from pathlib import Path

PAUSE_SECONDS = 0.05


def main(host: str, port: str, directory: Path) -> None:
    with (directory / "answers").open("a", buffering=1) as answers:
        while True:
            try:
                with urllib.request.urlopen(f"http://{host}:{port}/web/health", timeout=5) as answer:
                    answers.write("ok\n" if answer.status == 200 else f"{answer.status}\n")
            except OSError as error:
                answers.write(f"{error}\n")
            time.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
