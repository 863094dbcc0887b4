"""What the demo prints."""

from argparse import Namespace

import pytest

from sandbox.demo.demo import Demo


def test_lines_of_the_demo_are_lines_and_what_could_command_a_terminal_is_escaped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Demo(Namespace(json=False))._say("published", "", "by \x1b[2J")
    assert capsys.readouterr().out == "published\n\nby \\x1b[2J\n"
