"""`mlplatform push` and `mlplatform results`, on the session's stack."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner, Result

from mlplatform.cli.main import main
from mlplatform_tests.graphs import Graph, environment, replay


@pytest.fixture
def variables(stack) -> dict[str, str]:
    return {**stack.variables, "MLPLATFORM_S3_PREFIX": uuid.uuid4().hex, "MLPLATFORM_LEASE_SECONDS": "2"}


def call(variables: dict[str, str], *arguments: str) -> Result:
    with environment(variables):
        return CliRunner().invoke(main, arguments)


def test_a_push_is_learned_with_its_id_and_time(variables):
    time = "2026-01-31T12:00:00+00:00"
    result = call(variables, "push", "room", "21.5", "--id", "reading-1", "--time", time)
    assert result.exit_code == 0, result.output
    assert result.output == "reading-1\n"
    graph = Graph(variables, models=["ridge"])
    assert graph.run().success
    [row] = graph.stores.table("observations").read().to_pylist()
    assert row["series_id"] == "room"
    assert row["observation_id"] == "reading-1"
    assert row["value"] == 21.5
    assert row["event_time"] == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_push_without_an_id_gets_one_and_says_it(variables):
    ids = [call(variables, "push", "room", "21.5").output.strip() for _ in range(2)]
    graph = Graph(variables, models=["ridge"])
    assert graph.run().success
    assert graph.stores.table("observations").read()["observation_id"].to_pylist() == ids


def test_a_push_at_no_time_is_refused_and_leaves_nothing(variables):
    result = call(variables, "push", "room", "21.5", "--time", "yesterday")
    assert result.exit_code == 2
    assert "'yesterday' is not a time such as 2026-01-31T12:00:00+00:00" in result.output
    assert len(Graph(variables, models=["ridge"]).stores.objects.list("tables/inbox")) == 0


@pytest.mark.parametrize("command", [["results"], ["push", "room", "21.5"]], ids=["results", "push"])
def test_without_a_stack_the_error_says_how_to_start_one(tmp_path, command):
    result = call({"MLPLATFORM_DATA_DIRECTORY": str(tmp_path)}, *command)
    assert result.exit_code == 1
    assert "start it with `mlplatform up`" in result.output
    assert "Traceback" not in result.output


def test_results_before_anything_was_learned_say_what_to_do(variables):
    result = call(variables, "results")
    assert result.exit_code == 1
    assert "run the job with `make demo` or from Dagit" in result.output


def test_results_show_the_series_that_was_asked_for_and_name_one_that_is_unknown(variables):
    graph = Graph(variables, [replay(last=30, series_id="retail")], models=["ridge"])
    assert graph.run().success
    shown = call(variables, "results", "--series", "retail")
    assert shown.exit_code == 0, shown.output
    for model in ("ridge", "naive", "seasonal_naive", "airline_naive"):
        assert model in shown.output
    assert "* champion since" in shown.output
    unknown = call(variables, "results", "--series", "retial")
    assert unknown.exit_code == 1
    assert "'retial'" in unknown.output
    assert "retail" in unknown.output.replace("'retial'", "")


def test_results_of_many_series_are_a_summary(variables):
    graph = Graph(variables, models=["ridge"])
    for name in "abcd":
        call(variables, "push", name, "1.5")
        call(variables, "push", name, "2.5")
    assert graph.run().success
    shown = call(variables, "results")
    assert shown.exit_code == 0, shown.output
    assert "4 series" in shown.output
    assert "One series in full: --series ID" in shown.output
