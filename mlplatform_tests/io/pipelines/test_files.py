from __future__ import annotations

import pytest

from mlplatform.domain.batch.problems import InvalidProject
from mlplatform.io.pipelines.files import read, read_pipeline, typed
from mlplatform_tests.io.pipelines.folders import MINIMAL, load, problems_of, project_of


def plain(tmp_path, text: str):
    (tmp_path / "x.yaml").write_text(text)
    return read(tmp_path, tmp_path / "x.yaml").plain()


def told(tmp_path, text: str) -> str:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InvalidProject) as error:
        read(tmp_path, tmp_path / "x.yaml")
    return str(error.value)


def test_every_value_and_key_has_its_place(tmp_path) -> None:
    (tmp_path / "x.yaml").write_text("a:\n  - b: 1\n    c: 'x'\n")
    root = read(tmp_path, tmp_path / "x.yaml")
    places = {path: (node.start.line, node.start.column, node.place.column) for path, node in root.walk()}
    assert places == {
        (): (1, 1, 1),
        ("a",): (1, 1, 3),
        ("a", 0): (2, 5, 5),
        ("a", 0, "b"): (2, 5, 8),
        ("a", 0, "c"): (3, 5, 8),
    }


def test_scalars(tmp_path) -> None:
    text = "[1, 1.5, 1e-3, 2E5, true, ~, '1', 2026-01-31, null, 1_000]"
    assert plain(tmp_path, text) == [1, 1.5, 0.001, 2e5, True, None, "1", "2026-01-31", None, 1000]
    assert [typed(text) for text in ("5432", "0.5", "true", "", "2026-01-31", "a: b")] == [
        5432,
        0.5,
        True,
        None,
        "2026-01-31",
        "a: b",
    ]


def test_aliases_and_merge_keys(tmp_path) -> None:
    text = "base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nmore: {<<: [*base, {c: 4}]}\nagain: *base\n"
    found = plain(tmp_path, text)
    assert found["other"] == {"a": 1, "b": 3}
    assert found["more"] == {"a": 1, "b": 2, "c": 4}
    assert found["again"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "x.yaml:4: b.c: stands twice; the first is in line 3"),
        ("a: [1, 2\nb: 3\n", "x.yaml:2: is no YAML: did not find expected ',' or ']'"),
        (
            "a:\n\tb: 1\n",
            "x.yaml:2: is no YAML: found character that cannot start any token; indent with spaces",
        ),
        (
            "host: {{ env_var('A') }}\n",
            "x.yaml:1: host: YAML takes an unquoted template for a mapping; quote it",
        ),
        ("host: {{ env_var('A', 'b') }}\n", "x.yaml:1: an unquoted template; quote it"),
        ("a: 1\nhost: {{ env_var('A') }}:80\n", "x.yaml:2: an unquoted template; quote it"),
        ("1: a\n", 'x.yaml:1: the key 1 is not text; write "1" in quotes'),
        ("on: a\n", 'x.yaml:1: the key on is not text; write "on" in quotes'),
        ("[a]: b\n", "the key a list is not text"),
        ("a: !!python/object:os.system {}\n", "x.yaml:1: a: the tag !!python/object:os.system is not known"),
        ("a: !secret x\n", "x.yaml:1: a: the tag !secret is not known; there is !include"),
        ("a: !!int x\n", "x.yaml:1: a: 'x' is no int"),
        ("a: .inf\n", "x.yaml:1: a: .inf is not a finite number"),
        ("a: &a [*a]\n", "x.yaml:1: a[0]: an alias that contains itself"),
        ("a: 1\n---\nb: 2\n", "is no YAML: but found another document"),
        ("a: *nowhere\n", "x.yaml:1: is no YAML: found undefined alias"),
        ("a:\n  " + "[" * 100_000, "x.yaml:2: is nested too deeply"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, message) -> None:
    assert message in told(tmp_path, text)


def test_a_file_of_nested_aliases_is_refused(tmp_path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "more than 100,000 values" in told(tmp_path, "\n".join(lines))


def test_text_that_is_not_utf8(tmp_path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InvalidProject, match="is not UTF-8 text"):
        read(tmp_path, tmp_path / "x.yaml")


def test_a_byte_order_mark_and_windows_lines(tmp_path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 2\r\n")
    root = read(tmp_path, tmp_path / "x.yaml")
    assert root.plain() == {"a": 1, "b": {"c": 2}}
    assert root.nearest(("b", "c"))[0].place.line == 3


def test_included_files_keep_their_places(tmp_path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/a.yaml").write_text("x: 1\ny: !include b.yaml\n")
    (tmp_path / "parts/b.yaml").write_text("- 2\n- z: 3\n")
    (tmp_path / "x.yaml").write_text("a: !include parts/a.yaml\nb: [!include parts/b.yaml]\n")
    root = read(tmp_path, tmp_path / "x.yaml")
    assert root.plain() == {"a": {"x": 1, "y": [2, {"z": 3}]}, "b": [[2, {"z": 3}]]}
    place = root.nearest(("a", "y", 1, "z"))[0].place
    assert (place.file, place.line) == ("parts/b.yaml", 2)


def test_a_problem_of_an_included_file_names_that_file(tmp_path) -> None:
    text = MINIMAL.replace("{primary_key: customer_id}", "!include keys.yaml")
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines/keys.yaml").write_text("\nprimary_kee: customer_id\n")
    project = project_of(tmp_path, text)
    assert [str(problem) for problem in project.validate(["small"])] == [
        "pipelines/keys.yaml:2: training.schema.identifiers.primary_kee: no such key;"
        " did you mean primary_key?"
    ]


def test_includes_that_cannot_be(tmp_path) -> None:
    (tmp_path / "part.yaml").write_text("a: !include x.yaml\n")
    assert "files include each other: x.yaml -> part.yaml -> x.yaml" in told(
        tmp_path, "a: !include part.yaml\n"
    )
    assert "outside of the project's folder" in told(tmp_path, "a: !include ../../etc/passwd\n")
    assert "outside of the project's folder" in told(tmp_path, "a: !include /etc/passwd\n")
    assert "there is no file pat.yaml to include; did you mean part.yaml?" in told(
        tmp_path, "a: !include pat.yaml\n"
    )
    assert "!include needs the path of a file" in told(tmp_path, "a: !include [b]\n")
    (tmp_path / "link.yaml").symlink_to("/etc/passwd")
    assert "outside of the project's folder" in told(tmp_path, "a: !include link.yaml\n")


def composed(tmp_path, text: str, **files: str):
    project_of(tmp_path, text, **files)
    return read_pipeline(tmp_path, tmp_path / "pipelines/small.yaml").plain()


def test_a_base_is_merged_deeply_and_its_lists_are_replaced(tmp_path) -> None:
    base = "project: {tags: [a, b], owner: me}\ntraining: {x: {y: 1, z: 2}, w: {v: 1}}\n"
    text = "base_pipeline: common\nproject: {tags: [c]}\ntraining: {x: {y: 3}, w: ~}\n"
    assert composed(tmp_path, text, _common=base) == {
        "project": {"tags": ["c"], "owner": "me"},
        "training": {"x": {"y": 3, "z": 2}, "w": None},
    }
    assert load(tmp_path).names() == ["small"]


def test_a_base_may_be_a_pipeline_itself(tmp_path) -> None:
    project = project_of(tmp_path, MINIMAL, child="base_pipeline: small\nproject: {name: child}\n")
    assert project.validate() == []
    assert project.pipeline("child").training == project.pipeline("small").training


def test_problems_of_a_base_name_its_file(tmp_path) -> None:
    base = MINIMAL.replace("churned", "{a: b}")
    problems = problems_of(tmp_path, "base_pipeline: common\nproject: {name: small}\n", _common=base)
    assert problems == [
        "pipelines/_common.yaml:6: training.schema.target.label_column: is a mapping, not text"
    ]


@pytest.mark.parametrize(
    ("text", "files", "message"),
    [
        ("base_pipeline: comon\n", {"_common": ""}, "no pipelines/comon.yaml; did you mean common?"),
        ("base_pipeline: [a]\n", {}, "small.yaml:1: base_pipeline: needs the name of a pipeline"),
        ("base_pipeline: ../x\n", {}, "needs the name of a pipeline"),
        ("base_pipeline: small\n", {}, "there is no pipelines/_small.yaml"),
        ("base_pipeline: a\n", {"a": "", "_a": ""}, "both _a.yaml and a.yaml are there"),
        (
            "base_pipeline: a\n",
            {"_a": "base_pipeline: b\n"},
            "pipelines/_a.yaml:1: base_pipeline: the base of small",
        ),
        ("base_pipeline: a\n", {"_a": "[1]\n"}, "pipelines/_a.yaml:1: a base pipeline is a mapping"),
        ("base_pipeline: a\n", {"_a": "x: [\n"}, "pipelines/_a.yaml:2: is no YAML"),
    ],
)
def test_bases_that_cannot_be(tmp_path, text, files, message) -> None:
    project = project_of(tmp_path, text, **files)
    assert message in "\n".join(map(str, project.validate(["small"])))


def test_an_empty_file(tmp_path) -> None:
    assert problems_of(tmp_path, "# nothing\n") == [
        "pipelines/small.yaml:1: is empty, not a block of keys; it needs project, training"
    ]
    assert "is a list, not a block of keys" in problems_of(tmp_path, "[1]\n")[0]
