"""docs/monitoring asks for what the programs export: metrics, labels and their values, in PromQL that gives results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
import yaml

from rehome_consumer.doctor.migrations import UNSENT_TOO_LONG
from rehome_consumer.settings import Settings
from tests.support.exported import exported
from tests.support.promql import PromqlError, checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.promql import Exported

MONITORING = Path(__file__).parents[2] / "docs/monitoring"
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "rules.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SCRAPED = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
TARGETS = [(panel, target) for panel in DASHBOARD["panels"] for target in panel["targets"]]
FIELDS = {
    "": "annotations description editable links panels refresh schemaVersion tags templating time timezone title uid "
    "version",
    ".time": "from to",
    ".templating": "list",
    ".templating.list": "current hide label name query refresh type",
    ".annotations": "list",
    ".panels": "datasource description fieldConfig gridPos id options targets title type",
    ".panels.datasource": "type uid",
    ".panels.gridPos": "h w x y",
    ".panels.targets": "datasource expr instant legendFormat refId",
    ".panels.targets.datasource": "type uid",
    ".panels.fieldConfig": "defaults overrides",
    ".panels.fieldConfig.defaults": "custom min noValue thresholds unit",
    ".panels.fieldConfig.defaults.custom": "fillOpacity stacking",
    ".panels.fieldConfig.defaults.custom.stacking": "mode",
    ".panels.fieldConfig.defaults.thresholds": "mode steps",
    ".panels.fieldConfig.defaults.thresholds.steps": "color value",
    ".panels.options": "colorMode graphMode legend reduceOptions tooltip",
    ".panels.options.reduceOptions": "calcs",
    ".panels.options.legend": "displayMode placement",
    ".panels.options.tooltip": "mode",
}
"""Fields of Grafana's dashboards, of those that there are: another name would be ignored without a word."""
EXPRESSIONS = [rule["expr"] for rule in RULES] + [target["expr"] for _, target in TARGETS]
JOBS = frozenset(job["job_name"] for job in SCRAPED["scrape_configs"])
OF_THE_TARGET = {"job": JOBS, "instance": frozenset({"console:8090"})}


@pytest_asyncio.fixture(scope="module")
async def known() -> Exported:
    """What Prometheus has: what is exported, with the labels of the scrape."""
    own = await exported()
    return {name: {**labels, **OF_THE_TARGET} for name, labels in {"up": {}, **own}.items()}


def test_the_programs_export_what_the_pages_say(known: Exported) -> None:
    """So that the tests below do not hold against nothing."""
    pages = [(MONITORING.parent / name).read_text() for name in ("operating.md", "console.md")]
    documented = set(re.findall(r"^\| `(rehome_[a-z_]+)", "\n".join(pages), re.MULTILINE))
    assert {re.sub("_(bucket|count|sum)$", "", name) for name in known} - {"up"} == documented
    assert set(known["rehome_findings"]) == {"kind", "severity", "job", "instance"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_is_there(rule: dict[str, Any], known: Exported) -> None:
    result = checked(rule["expr"], known)
    assert result.kind == "vector"
    named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
    assert named <= result.labels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_grave_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook"}
    assert len(annotations["description"]) > 80
    assert re.fullmatch(r"Rehome([A-Z][a-z]+)+", rule["alert"])


def test_alerts_have_names_of_their_own() -> None:
    names = [rule["alert"] for rule in RULES]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("target", TARGETS, ids=lambda one: f"{one[0]['title']} {one[1]['refId']}")
def test_a_panel_asks_for_what_is_there(
    target: tuple[dict[str, Any], dict[str, Any]], known: Exported
) -> None:
    result = checked(target[1]["expr"], known)
    assert set(re.findall(r"\{\{\s*(\w+)\s*\}\}", target[1].get("legendFormat", ""))) <= result.labels


def test_every_metric_is_on_the_dashboard_or_raises_an_alert(known: Exported) -> None:
    used = set().union(*(checked(one, known).metrics for one in EXPRESSIONS))
    families = {re.sub("_(bucket|count|sum)$", "", name) for name in known}
    assert families - {re.sub("_(bucket|count|sum)$", "", name) for name in used} == set()


def test_the_dashboard_can_be_imported_anywhere() -> None:
    """Its data source is a variable, and no two panels share a place or a number."""
    (variable,) = DASHBOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    asked = [one["datasource"] for pair in TARGETS for one in pair]
    assert {one["uid"] for one in asked} == {f"${{{variable['name']}}}"}
    assert DASHBOARD.get("id") is None
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert sorted(set(numbers)) == sorted(numbers)
    places = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24


def fields(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every field, by where it stands; places in lists have no number."""
    if isinstance(node, dict):
        for name, inner in node.items():
            yield where, name
            yield from fields(inner, f"{where}.{name}")
    elif isinstance(node, list):
        for inner in node:
            yield from fields(inner, where)


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    unknown = [
        (where, name) for where, name in fields(DASHBOARD) if name not in FIELDS.get(where, "").split()
    ]
    assert unknown == []


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_a_panel_is_of_a_kind_and_a_unit_that_grafana_has(panel: dict[str, Any]) -> None:
    assert panel["type"] in {"stat", "timeseries"}
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"] in {"short", "s", "bytes"}
    letters = [target["refId"] for target in panel["targets"]]
    assert sorted(set(letters)) == letters
    if "thresholds" in defaults:  # the first has no lower end, the others grow
        first, *others = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert first is None
        assert others == sorted(others)


def test_limits_are_those_of_the_code() -> None:
    expressions = {rule["alert"]: rule["expr"] for rule in RULES}
    every = Settings.model_fields["doctor_every"].default
    assert expressions["RehomeDoctorLate"].endswith(f"> {3 * every:g}")
    assert expressions["RehomeOutboxStuck"].endswith(f"> {UNSENT_TOO_LONG.total_seconds():g}")


def test_the_console_is_scraped_with_its_token() -> None:
    jobs = {job["job_name"]: job for job in SCRAPED["scrape_configs"]}
    assert "credentials_file" in jobs["rehome-console"]["authorization"]
    assert SCRAPED["rule_files"] == ["rules.yaml"]


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("max(rehome_claim)", "nobody exports rehome_claim"),
        ("max by (stepp) (rehome_retries_waiting)", "there is no such label"),
        ('rehome_migrations{status="failed"} > 0', "has no label status"),
        ('rehome_migrations{state="rolledback"}', "is never its value"),
        ('rehome_migrations{state=~"completed|done"}', "done is never its value"),
        ("max(rehome_claims > 0", "the end"),
        ("max(rehome_claims)) > 0", "')'"),
        ("rehome_claims >> 0", "'>'"),
        ("rehome_claims & 1", "is not understood"),
        ("rehome_claims 0", "'0'"),
        ("maximum(rehome_claims)", "function maximum is not known"),
        ("delta(rehome_claims)", "delta takes"),
        ("max(rehome_claims[5m])", "not a range"),
        ("rehome_claims[5m] > 0", "of a range"),
        ("increase(rehome_claims[5m])", "a gauge"),
        ("histogram_quantile(0.5, max by (step) (rehome_step_seconds_bucket))", "needs the label le"),
        ("max(rehome_claims) == 0 and rehome_migrations_running > 0", "never are"),
        ("max(rehome_claims) and 1", "needs vectors"),
        ("1 > 0", "two numbers"),
    ],
)
def test_what_could_never_give_a_result_is_noticed(expression: str, why: str, known: Exported) -> None:
    with pytest.raises(PromqlError, match=re.escape(why)):
        checked(expression, known)
