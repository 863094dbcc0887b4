"""What the command line of `rehome drain`, and of `rehome publish`, refuses before anything is asked of a server."""

from __future__ import annotations

from uuid import uuid4

import pytest

from rehome_consumer.__main__ import main

PUBLISH = ["drain", "pool-1", "--publish"]
OTHER = [
    *("publish", "plan.upgraded", "--instance", str(uuid4())),
    *("--customer", str(uuid4()), "--subscription", str(uuid4())),
]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (PUBLISH, "--publish needs --to-plan NAME"),
        ([*PUBLISH, "--to-plan", "premium", "--cpu", "0"], "argument --cpu: 0.0 is not a number above 0"),
        ([*PUBLISH, "--to-plan", "premium", "--storage", "x"], "argument --storage: 'x' is not a size"),
        ([*PUBLISH, "--to-plan=-x"], "argument --tier: String should have at least 1 character"),
        ([*PUBLISH, "--to-plan", "p" * 300], "argument --to-plan: String should have at most"),
        ([*PUBLISH, "--to-plan", "premium", "--at-once", "0"], "argument --at-once: '0' is not a whole"),
        (["drain", "pool-1", "--memory", "much"], "argument --memory: 'much' is not a size such as 8G"),
        ([*OTHER, "--to-plan=-x"], "argument --tier: String should have at least 1 character"),
        ([*OTHER, "--to-plan", "premium", "--from-plan", "p" * 300], "argument --from-plan: String should"),
    ],
)
def test_an_order_that_could_not_be_published_is_wrong_usage(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHOME_AMQP_URL", "amqp://rehome@127.0.0.1:1/")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert (ended.value.code, said in capsys.readouterr().err) == (2, True)
