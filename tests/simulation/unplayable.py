"""Why a schedule could not be played to its end."""

from __future__ import annotations

import traceback


def why(error: BaseException) -> str:
    """The error that came first, and those that came while it was handled, each with its place.

    An error of the clean-up would hide the one that made it necessary.
    """
    chain = [error]
    while before := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(before)
    return ", and then ".join(_with_place(one) for one in reversed(chain))


def _with_place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
