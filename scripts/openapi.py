"""Writes docs/openapi.json, which describes the console's API; with --check only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rehome_consumer.console.app import application, description


def main() -> int:
    """Write, or compare."""
    path = Path(__file__).parent.parent / "docs" / "openapi.json"
    new = json.dumps(description(application(None)), indent=2) + "\n"
    if "--check" in sys.argv:
        same = path.exists() and path.read_text(encoding="utf-8") == new
        if not same:
            print("docs/openapi.json is out of date; run scripts/openapi.py", file=sys.stderr)
        return int(not same)
    path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
