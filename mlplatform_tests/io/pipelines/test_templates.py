from __future__ import annotations

import pytest

from mlplatform.io.pipelines.files import read
from mlplatform.io.pipelines.secrets import names_in, redact, reveal
from mlplatform.io.pipelines.templates import Templates
from mlplatform_tests.io.pipelines.folders import MINIMAL, load, project_of

ENVIRONMENT = {"HOST": "db", "PORT": "5432", "NUMBER": "007", "EMPTY": "", "RATE": "1e-3", "FLAG": "true"}


def rendered(tmp_path, text: str, strict: bool = True):
    (tmp_path / "x.yaml").write_text(text)
    templates = Templates(ENVIRONMENT, {"snapshot": "2026-01"}, strict)
    node = templates.render(read(tmp_path, tmp_path / "x.yaml"))
    return node.plain(), [str(problem) for problem in templates.problems]


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ env_var('HOST') }}", "db"),
        ("{{ env_var('HOST') }}:{{ env_var('PORT') }}", "db:5432"),
        ("{{ env_var('PORT') }}", 5432),
        ("port {{ env_var('PORT') }}", "port 5432"),
        ("{{ env_var('RATE') }}", 0.001),
        ("{{ env_var('FLAG') }}", True),
        ("{{ env_var('EMPTY') }}", None),
        ("{{ env_var('NONE', 'd') }}", "d"),
        ("{{ env_var('NONE', 80) }}", 80),
        ("{{ env_var('NONE', '[1, 2]') }}", "[1, 2]"),
        ("{{ var('snapshot') }}", "2026-01"),
        ("{{ var('none', 'x') }}", "x"),
        ("{{ env_var('HOST') | upper }}", "DB"),
        ("{% if env_var('FLAG') == 'true' %}a{% else %}b{% endif %}", "a"),
        ("{{ secret('A_B') }}", "{{ secret('A_B') }}"),
        ("{{secret( 'A' )}}", "{{ secret('A') }}"),
        ("x://u:{{ secret(\"A\") }}@{{ env_var('HOST') }}", "x://u:{{ secret('A') }}@db"),
        ("{{ '{{' }} stays", "{{ stays"),
        ("no { template }", "no { template }"),
    ],
)
def test_a_template_gives_a_value(tmp_path, template, value) -> None:
    quoted = template.replace("'", "''")
    assert rendered(tmp_path, f"a: ['{quoted}']\n") == ({"a": [value]}, [])


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ env_var('NONE') }}",
            "the environment variable NONE is not set; set it, or give a default: env_var(",
        ),
        ("{{ var('none') }}", "no variable none is given; give it: --vars none=value"),
        ("{{ envvar('A') }}", "'envvar' is undefined; did you mean env_var?"),
        ("{{ nothing }}", "'nothing' is undefined; there are env_var, secret, var"),
        ("{{ env_var('HOST' }}", "is no template"),
        ("{{ env_var() }}", "missing 1 required positional argument"),
        ("{{ env_var('HOST').__class__.__mro__ }}", "is unsafe"),
        ("{{ env_var('HOST') / 2 }}", "unsupported operand"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ secret('A') | upper }}", "a secret is only known when a step runs"),
        ("{% if secret('A') == 'x' %}y{% endif %}", "a secret is only known when a step runs"),
        ("{{ secret('a b') }}", "a secret's name is"),
        ("{{ secret(5) }}", "a secret's name is"),
    ],
)
def test_a_wrong_template_is_told_with_its_line_and_stays(tmp_path, template, message) -> None:
    value, (problem,) = rendered(tmp_path, f"a:\n  b: >-\n    {template}\n")
    assert problem.startswith("x.yaml:2: a.b: ")
    assert message in problem
    assert value == {"a": {"b": template}}


def test_for_another_target_a_variable_need_not_be_set(tmp_path) -> None:
    template = "{{ env_var('NONE') }}"
    assert rendered(tmp_path, f'a: "{template}"\n', strict=False) == ({"a": template}, [])
    assert len(rendered(tmp_path, 'a: "{{ wrong }}"\n', strict=False)[1]) == 1


def test_templates_do_not_move_lines_and_cannot_add_keys(tmp_path) -> None:
    text = MINIMAL.replace("churned", "\"{{ env_var('COLUMN') }}\"").replace("customer_id", "{a: b}")
    project_of(tmp_path, text)
    project = load(tmp_path, COLUMN="a\nb: {c: d}")
    assert [str(problem) for problem in project.validate()] == [
        "pipelines/small.yaml:7: training.schema.identifiers.primary_key: is a mapping, not text"
    ]


def test_a_number_from_a_template_is_text_where_text_is_wanted(tmp_path) -> None:
    text = MINIMAL.replace("name: small", "name: small, owner: \"{{ env_var('OWNER') }}\"")
    text += "  data_source: {label_table: x}\n"
    text = text.replace("  data_source: {label_table: customers}\n", "")
    project_of(tmp_path, text)
    assert load(tmp_path, OWNER="007").pipeline("small").project.owner == "007"


def test_a_value_that_could_not_be_evaluated_is_one_problem(tmp_path) -> None:
    text = MINIMAL + "  evaluation: {generate_plots: \"{{ env_var('NONE') }}\"}\n"
    (problem,) = project_of(tmp_path, text).validate()
    assert "NONE is not set" in problem.message


def test_variables_of_the_command_line(tmp_path) -> None:
    text = MINIMAL.replace("customers", "\"{{ var('table') }}\"")
    project_of(tmp_path, text)
    pipeline = load(tmp_path, variables={"table": "customers_2026"}).pipeline("small")
    assert pipeline.training.data_source.label_table == "customers_2026"


def test_secrets_are_revealed_at_any_depth_and_stay_text() -> None:
    config = {
        "password": "{{ secret('P') }}",
        "urls": ["x://{{ secret('U') }}:{{ secret('P') }}@h"],
        "port": 1,
    }
    values = {"P": "12345", "U": "{{ secret('P') }}"}
    assert names_in(config) == {"P", "U"}
    assert reveal(config, values.__getitem__) == {
        "password": "12345",
        "urls": ["x://{{ secret('P') }}:12345@h"],
        "port": 1,
    }
    assert config["password"] == "{{ secret('P') }}"


def test_what_a_provider_raises_comes_through() -> None:
    with pytest.raises(KeyError, match="P"):
        reveal({"a": "{{ secret('P') }}"}, {}.__getitem__)


def test_secrets_are_redacted_as_they_are_quoted() -> None:
    secret = "p/ä's w@rd"
    text = f"{secret}; postgresql://u:p%2F%C3%A4%27s%20w%40rd@h; p%2F%C3%A4%27s+w%40rd; {[secret]!r}"
    assert redact(text, [secret, ""]) == '***; postgresql://u:***@h; ***; ["***"]'
    assert redact("abcd abc", ["abc", "abcd"]) == "*** ***"
