"""A part of PromQL, parsed and checked against what is exported: enough for docs/monitoring, an error for the rest.

Grammar, kinds and precedence are those of Prometheus' documentation (querying: basics, operators, functions). Beyond
the syntax it finds what Prometheus accepts and what never gives a result: a metric, label or value that nobody
exports, and an operation between vectors whose labels can never be the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Exported = Mapping[str, Mapping[str, frozenset[str]]]

T = TypeVar("T")

Kind = Literal["scalar", "vector", "range"]

_TOKEN: Final = re.compile(
    r"""(?P<duration>(?:\d+(?:ms|[smhdwy]))+) | (?P<number>\d+(?:\.\d+)?) | (?P<name>[A-Za-z_:][\w:]*)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*') | (?P<sign>=~|!~|[=!<>]=|[-+*/%^<>=(){}\[\],]) | (?P<blank>\s+)""",
    re.VERBOSE,
)
_LEVELS: Final = (
    ("or",),
    ("and", "unless"),
    ("==", "!=", "<=", "<", ">=", ">"),
    ("+", "-"),
    ("*", "/", "%"),
)
_COMPARISONS: Final = _LEVELS[2]
_SETS: Final = ("or", "and", "unless")
_AGGREGATES: Final = frozenset({"sum", "min", "max", "avg", "count"})
_FUNCTIONS: Final[dict[str, tuple[tuple[Kind, ...], Kind]]] = {
    "absent": (("vector",), "vector"),
    "delta": (("range",), "vector"),
    "histogram_quantile": (("scalar", "vector"), "vector"),
    "increase": (("range",), "vector"),
    "rate": (("range",), "vector"),
    "time": ((), "scalar"),
    "vector": (("scalar",), "vector"),
}
_OF_COUNTERS: Final = ("increase", "rate")


class PromqlError(Exception):
    """The expression is wrong, or beyond what this module knows; the message says where."""


@dataclass(frozen=True, slots=True)
class Result:
    """What an expression gives: its kind, the labels that its series have, the metrics it reads."""

    kind: Kind
    labels: frozenset[str] = frozenset()
    metrics: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Parser:
    exported: Exported
    tokens: list[tuple[str, str]]
    place: int = 0

    def peek(self) -> str:
        return self.tokens[self.place][1]

    def take(self, *wanted: str, kind: str | None = None) -> str:
        found_kind, found = self.tokens[self.place]
        if (wanted and found not in wanted) or (kind is not None and found_kind != kind):
            before = " ".join(text for _, text in self.tokens[: self.place])
            raise PromqlError(
                f"after `{before}`: {found or 'the end'!r} instead of {' or '.join(wanted) or kind}"
            )
        self.place += 1
        return found

    def operation(self, level: int = 0) -> Result:
        if level == len(_LEVELS):
            return self.term()
        left = self.operation(level + 1)
        while self.peek() in _LEVELS[level]:
            left = _combined(left, self.take(), self.operation(level + 1))
        return left

    def term(self) -> Result:
        kind, text = self.tokens[self.place]
        if text == "(":
            self.take()
            inner = self.operation()
            self.take(")")
            return inner
        if kind == "number":
            self.take()
            return Result("scalar")
        self.take(kind="name")
        if text in _AGGREGATES:
            return self.aggregate(text)
        return self.call(text) if self.peek() == "(" else self.selector(text)

    def aggregate(self, name: str) -> Result:
        by: list[str] = []
        if self.peek() == "by":
            self.take()
            by = self.listed(lambda: self.take(kind="name"), "(", ")")
        (given,) = self.listed(self.operation, "(", ")")
        _require(given.kind == "vector", f"{name} takes a vector, not a {given.kind}")
        for label in by:
            _require(label in given.labels, f"{name} by ({label}): there is no such label")
        return Result("vector", frozenset(by), given.metrics)

    def call(self, name: str) -> Result:
        _require(name in _FUNCTIONS, f"function {name} is not known here")
        wanted, gives = _FUNCTIONS[name]
        given = self.listed(self.operation, "(", ")")
        kinds = tuple(one.kind for one in given)
        _require(kinds == wanted, f"{name} takes {wanted}, not {kinds}")
        labels = frozenset[str]().union(*(one.labels for one in given))
        metrics = frozenset[str]().union(*(one.metrics for one in given))
        if name == "histogram_quantile":
            _require("le" in labels, "histogram_quantile needs the label le")
            labels -= {"le"}
        if name in _OF_COUNTERS:
            for metric in metrics:
                _require(
                    metric.endswith(("_total", "_bucket", "_count", "_sum")), f"{name} of {metric}: a gauge"
                )
        return Result(gives, frozenset() if name == "absent" else labels, metrics)

    def selector(self, metric: str) -> Result:
        _require(metric in self.exported, f"nobody exports {metric}")
        labels = self.exported[metric]
        if self.peek() == "{":
            self.listed(lambda: self.matcher(metric, labels), "{", "}")
        kind: Kind = "vector"
        if self.peek() == "[":
            self.take()
            self.take(kind="duration")
            self.take("]")
            kind = "range"
        if self.peek() == "offset":
            self.take()
            self.take(kind="duration")
        return Result(kind, frozenset(labels), frozenset({metric}))

    def matcher(self, metric: str, labels: Mapping[str, frozenset[str]]) -> None:
        label, sign = self.take(kind="name"), self.take("=", "!=", "=~", "!~")
        value = self.take(kind="text")[1:-1]
        _require(label in labels, f"{metric} has no label {label}")
        for one in value.split("|") if "~" in sign else [re.escape(value)]:
            known = any(re.fullmatch(one, existing) for existing in labels[label])
            _require(known, f'{metric}{{{label}{sign}"{value}"}}: {one} is never its value')

    def listed(self, part: Callable[[], T], begin: str, end: str) -> list[T]:
        self.take(begin)
        found: list[T] = []
        while self.peek() != end:
            found.append(part())
            if self.peek() != end:
                self.take(",")
        self.take(end)
        return found


def checked(expression: str, exported: Exported) -> Result:
    """What an expression gives.

    Args:
        expression: PromQL.
        exported: each metric's labels, and the values that each of them may have.

    Raises:
        PromqlError: it is wrong, asks for what nobody exports, or is beyond what is known here.
    """
    tokens, place = [], 0
    while place < len(expression):
        found = _TOKEN.match(expression, place)
        _require(found is not None, f"{expression[place:]!r} is not understood")
        assert found is not None
        if found.lastgroup != "blank":
            tokens.append((str(found.lastgroup), found.group()))
        place = found.end()
    parser = _Parser(exported, [*tokens, ("end", "")])
    result = parser.operation()
    parser.take("")
    return result


def _combined(left: Result, sign: str, right: Result) -> Result:
    kinds = {left.kind, right.kind}
    _require("range" not in kinds, f"{sign} of a range")
    _require(sign not in _SETS or kinds == {"vector"}, f"{sign} needs vectors")
    _require(sign not in _COMPARISONS or kinds != {"scalar"}, f"{sign} of two numbers")
    if kinds == {"vector"}:
        same = left.labels == right.labels
        _require(same, f"{sign}: labels {sorted(left.labels)} never are {sorted(right.labels)}")
    kind: Kind = "vector" if "vector" in kinds else "scalar"
    return Result(kind, left.labels | right.labels, left.metrics | right.metrics)


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise PromqlError(why)
