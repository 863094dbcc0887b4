"""docs/console.md agrees with the code: its metrics, its settings, its words."""

import re
from pathlib import Path

from rehome_consumer.console import access, live, metrics, server
from rehome_consumer.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs/console.md").read_text()


def test_every_metric_is_explained() -> None:
    source = Path(metrics.__file__).read_text()
    counters = set(re.findall(r'CounterMetricFamily\(\s*"(rehome_[a-z_]+)"', source))
    assert counters == {"rehome_step_failed_tries", "rehome_moves", "rehome_moved_bytes"}
    names = set(re.findall(r'"(rehome_[a-z_]+)"', source)) - counters | {f"{name}_total" for name in counters}
    assert names == set(re.findall(r"^\| `(rehome_[a-z_]+)", PAGE, re.MULTILINE))


def test_every_setting_is_explained() -> None:
    own = {f"REHOME_{name.upper()}" for name in Settings.model_fields if name.startswith("console_")}
    assert own == set(re.findall(r"REHOME_CONSOLE_[A-Z_]+", PAGE))


def test_numbers_are_those_of_the_code() -> None:
    assert f"lasts {access.LASTS // 3600} hours" in PAGE
    assert f"A token has {access.SHORTEST} characters or more" in PAGE
    assert f"{server.MOST} connections at a time, {live.MOST} pages" in PAGE
    assert f"{server.CONNECTIONS} connections to the" in PAGE
    assert f"ends it within {server.GRACE} seconds" in PAGE
    assert f"no time-out before {live.SILENCE:g} s" in PAGE


def test_every_test_that_it_names_is_there() -> None:
    tests = (Path(__file__).parents[1] / "integration/test_console_pages.py").read_text()
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) == 9
    assert [name for name in named if f"def {name}(" not in tests] == []
