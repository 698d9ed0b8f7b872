"""The alerts fire when they must, and alerts and dashboard ask for nothing that the services do not tell."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from mlplatform.domain.champion import WARM_UP
from mlplatform.local.stack import RunningStack
from mlplatform.services import features, ingestion, models
from mlplatform.settings import Settings
from mlplatform_tests.cli.serving import on_stack
from mlplatform_tests.local.processes import eventually

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
RULES_TEST = DEPLOY / "prometheus" / "alerts_test.yaml"
DASHBOARD = DEPLOY / "grafana" / "online-learning.json"
# What Prometheus makes by itself.
PROMETHEUS_OWN = {"up", "ALERTS"}
TARGET_LABELS = {"job", "instance"}
KEYWORDS = {"and", "or", "unless", "bool", "offset"}
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}

promtool = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool is not on the PATH: apt-get install prometheus"
)


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def asked() -> list[str]:
    """Every expression of the rules and the dashboard."""
    told = dashboard()
    variables = [each["query"]["query"] for each in told["templating"]["list"] if each["type"] == "query"]
    return [
        *(rule["expr"] for rule in rules()),
        *(target["expr"] for panel in panels() for target in panel["targets"]),
        *(re.fullmatch(r"label_values\((.+), \w+\)", each)[1] for each in variables),
        *(each["expr"] for each in told["annotations"]["list"]),
    ]


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The names of the metrics in an expression, each with the labels that it is chosen by."""
    text = re.sub(r'"[^"]*"', '""', expression)
    text = re.sub(r"\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)
    for found in re.finditer(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?(?![\w:]|\s*\()", text):
        name, chosen = found.groups()
        if name not in KEYWORDS:
            yield name, set(re.findall(r"(\w+)\s*[=!]", chosen or ""))


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("up == 0", [("up", set())]),
        (
            'sum by (job) (rate(a_total{status=~"5..", route!~"b{c}"}[5m])) / on (job) b:c',
            [("a_total", {"status", "route"}), ("b:c", set())],
        ),
        ("a and b_total > bool 1.5e3 or absent(c)", [("a", set()), ("b_total", set()), ("c", set())]),
        (
            'histogram_quantile(0.99, sum by (le) (rate(d_bucket{x="$x"}[$__rate_interval]))) > 0.01',
            [("d_bucket", {"x"})],
        ),
    ],
)
def test_the_names_in_an_expression(expression: str, found: list[tuple[str, set[str]]]) -> None:
    assert list(selectors(expression)) == found


@pytest.fixture(scope="module")
def exported(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every name of the services' metrics, with its labels, after each of them has had its share."""
    directory = tmp_path_factory.mktemp("services")
    settings = Settings(on_stack(Settings(stack.variables), directory, uuid.uuid4().hex))
    names: dict[str, set[str]] = {}
    with ExitStack() as opened:

        def client(app: FastAPI) -> TestClient:
            return opened.enter_context(TestClient(app))

        services = [
            client(ingestion.application(settings)),
            client(features.application(settings)),
            client(models.application(settings, ["linear_regression"])),
            client(models.application(settings, ["bagging_regressor", "ridge_regression"])),
        ]
        # Services recover after they have started to listen.
        assert eventually(lambda: all(each.get("/ready").is_success for each in services))
        fetch, add, learn, learn_all = services
        observation = fetch.get("/next").json()
        for value in (observation["target"], observation["target"] + 1):
            featured = add.post("/add", json={"series_id": f"a-{directory.name}", "value": value}).json()
            body = {"features": featured["features"], "target": value}
            assert learn.post("/predict_learn", json=body).status_code == 200
        # As many as it takes to be champion, and one of which nobody knows anything.
        for _ in range(WARM_UP + 1):
            assert learn_all.post("/models/champion/predict_learn", json=body).status_code == 200
        for service in services:
            for family in text_string_to_metric_families(service.get("/metrics").text):
                for suffix in SUFFIXES.get(family.type, ("",)):
                    names.setdefault(family.name + suffix, set())
                for sample in family.samples:
                    names.setdefault(sample.name, set()).update(sample.labels)
    return names


def test_rules_and_dashboard_ask_for_what_the_services_tell(exported: dict[str, set[str]]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    wanted = [each for expression in asked() for each in selectors(expression)]
    assert len(wanted) > 50
    unknown = {name for name, _ in wanted} - exported.keys() - recorded - PROMETHEUS_OWN
    assert unknown == set()
    for name, labels in wanted:
        if known := exported.get(name):
            assert labels <= known | TARGET_LABELS, name


def test_what_the_services_tell_of_themselves_is_shown(exported: dict[str, set[str]]) -> None:
    shown = {name for expression in asked() for name, _ in selectors(expression)}
    own = {name for name in exported if name.startswith(("features_", "ingestion_", "model_", "ml_champion"))}
    # When a counter began says nothing to a person.
    assert {name for name in own if not name.endswith("_created")} - shown == set()


@promtool
def test_the_rules_are_valid_and_fire_when_they_must() -> None:
    for command in (["check", "rules", RULES.name], ["test", "rules", RULES_TEST.name]):
        ended = subprocess.run(["promtool", *command], cwd=RULES.parent, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@promtool
def test_the_expressions_of_the_dashboard_are_valid(tmp_path: Path) -> None:
    expressions = [
        re.sub(r"\$__(rate_interval|range)", "5m", expression)
        .replace("$series", ".*")
        .replace("$model", ".*")
        for expression in asked()
    ]
    written = [{"record": f"dashboard:{at}", "expr": each} for at, each in enumerate(expressions)]
    path = tmp_path / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": written}]}))
    ended = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_alert_is_seen_to_fire_and_not_to_fire() -> None:
    cases = [
        case
        for test in yaml.safe_load(RULES_TEST.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    for fires in (True, False):
        assert {case["alertname"] for case in cases if bool(case["exp_alerts"]) == fires} == set(alerts())


def test_every_alert_says_what_is_wrong_how_bad_it_is_and_the_remedy() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["remedy"], name


def test_the_six_panels_of_the_seed_are_there() -> None:
    by_title = {panel["title"]: " ".join(target["expr"] for target in panel["targets"]) for panel in panels()}
    wanted = {
        "Predictions": [
            'avg(ml_model_last_prediction{model=~"knn_regressor|amf_regressor"',
            'ml_model_last_actual{model="linear_regression"',
        ],
        "Predictions (all)": ["ml_model_last_prediction{"],
        "MAPE 5": ["ml_model_mape_5{"],
        "MAPE 10": ["ml_model_mape_10{"],
        "MAPE 20": ["ml_model_mape_20{"],
        "Error Rate": ["ml_model_last_error{"],
    }
    assert list(by_title)[:6] == list(wanted)
    for title, parts in wanted.items():
        for part in parts:
            assert part in by_title[title]


def test_what_the_seed_could_not_show_is_there() -> None:
    by_title = {panel["title"]: " ".join(target["expr"] for target in panel["targets"]) for panel in panels()}
    for title, part in {
        "Champion": "ml_champion{",
        "Shadow against the champion": "ml_champion)",
        "Who answers": "ml_champion_answers_total",
        "Changes of champion": "ml_champion_changes_total{",
        "MAE 20, and that of the value before": "ml_model_naive_mae_20{",
        "Drift": "ml_model_drift_total{",
        "Observation lag": "ml_model_last_event_timestamp_seconds{",
        "Snapshot age": "model_snapshot_age_seconds",
        "Queue depth": "model_queue_depth",
        "Error budget left": "[30d]",
        "Burn rate": "ratio_rate6h",
    }.items():
        assert part in by_title[title]


def test_the_dashboard_is_one_that_grafana_can_place() -> None:
    told = dashboard()
    assert told["refresh"] == "5s"
    assert [variable["name"] for variable in told["templating"]["list"]] == ["datasource", "series", "model"]
    everything = told["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for panel in panels():
        # Of whichever Prometheus is chosen: the id of ours is unknown elsewhere.
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["targets"]
    for one, other in combinations((panel["gridPos"] for panel in everything), 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in everything)
