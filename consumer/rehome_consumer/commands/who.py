"""Who types a command, for the journal."""

from __future__ import annotations

import getpass
import os
from platform import node


def who() -> str:
    """`login@host` of whoever runs this process; behind sudo, of whoever called that. What they say, not proven."""
    try:
        login = (os.environ.get("SUDO_USER") if os.geteuid() == 0 else None) or getpass.getuser()
    except (KeyError, OSError):  # an id without a name, as in a container
        login = f"uid {os.getuid()}"
    text = f"{login}@{node()}" if node() else login
    return "".join(one for one in text if one.isprintable() and one not in ":;")
