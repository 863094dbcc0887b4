"""`rehome completion`: a script by which a shell completes commands, options and fixed values."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any, Final

from rehome_consumer.commands.lines import Paragraphs, say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ABOUT = """\
Print a script that completes the words of this command line. It is made from the commands themselves; print it again
after an upgrade. It asks nothing of any server, so that ids are not completed.

bash: rehome completion bash > /etc/bash_completion.d/rehome, or in ~/.bashrc: eval "$(rehome completion bash)"

zsh, in ~/.zshrc after compinit: eval "$(rehome completion zsh)\""""

ZSH: Final = "autoload -U +X bashcompinit && bashcompinit"
"""zsh reads bash's completions by this."""
SCRIPT: Final = """\
# Completes `rehome`; printed by `rehome completion`.
_rehome() {{
    local at="" word="" words="" i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at ${{COMP_WORDS[i]}}" in
            {commands}) at="$at ${{COMP_WORDS[i]}}" ;;
        esac
    done
    case "$at ${{COMP_WORDS[COMP_CWORD - 1]}}" in
{values}
        *)
            case "$at" in
{words}
            esac
            ;;
    esac
    for word in $words; do
        case "$word" in "${{COMP_WORDS[COMP_CWORD]}}"*) COMPREPLY+=("$word") ;; esac
    done
}}
complete -o default -F _rehome rehome"""
"""A command is what stands before the word, options left out: ` dead list`."""


def add(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "completion",
        help="a script that completes this command line in bash or zsh",
        description=ABOUT,
        formatter_class=Paragraphs,
    )
    parser.add_argument("shell", choices=["bash", "zsh"], help="for which shell")
    parser.set_defaults(work=_completion, commands=commands.choices)


async def _completion(args: argparse.Namespace) -> int:
    if args.shell == "zsh":
        say(ZSH)
    say(*script(args.commands).split("\n"))
    return 0


def script(commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """The script for these commands."""
    found = dict(_all("", commands))
    values, words = [], [f'                "") words={shlex.quote(" ".join(sorted(commands)))} ;;']
    for at, parser in found.items():
        for action in _actions(parser):
            if action.option_strings and action.nargs != 0:
                named = "|".join(shlex.quote(f"{at} {option}") for option in action.option_strings)
                values.append(f"        {named}) words={shlex.quote(_choices(action))} ;;")
        words.append(f"                {shlex.quote(at)}) words={shlex.quote(_words(parser))} ;;")
    return SCRIPT.format(
        commands="|".join(map(shlex.quote, found)), values="\n".join(values), words="\n".join(words)
    )


def _all(before: str, commands: Mapping[str, argparse.ArgumentParser]) -> Iterator[tuple[str, Any]]:
    for name, parser in commands.items():
        at = f"{before} {name}"
        yield at, parser
        for action in _actions(parser):
            if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no other way
                yield from _all(at, action.choices)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001 - argparse has no other way


def _choices(action: argparse.Action) -> str:
    return " ".join(map(str, action.choices or ()))


def _words(parser: argparse.ArgumentParser) -> str:
    """What may stand next: commands below it and fixed values, then options."""
    actions = _actions(parser)
    fixed = [_choices(action) for action in actions if not action.option_strings and action.choices]
    options = [action.option_strings[-1] for action in actions if action.option_strings]
    return " ".join([*fixed, *sorted(options)])
