from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mlplatform.defs
from mlplatform.domain.observations import SourceError
from mlplatform.io.sources.replay import ReplaySource

DATA = Path(mlplatform.defs.__file__).parent / "online_learning" / "data"
MONTHS = "timestamp,value\n2020-01,1.5\n2020-02,2.5\n2020-03,3.5\n"
TWO_SERIES = """series_id,timestamp,value
a,2020-01,1
a,2020-02,2
a,2020-03,3
b,2020-02,20
b,2020-03,30
b,2020-04,40
"""


def replay(directory: Path, text: str, **options) -> ReplaySource:
    path = directory / "data.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return ReplaySource("retail", path, **{"series_id": "a", **options})


def refusal(directory: Path, text: str, **options) -> str:
    with pytest.raises(SourceError) as caught:
        replay(directory, text, **options).read(0)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        MONTHS,
        MONTHS.replace("timestamp,value", "input,target"),
        MONTHS.replace("timestamp,value", " timestamp , value "),
        MONTHS.replace("\n", "\r\n"),
        MONTHS.replace("\n", "\n\n"),
        MONTHS.removesuffix("\n"),
        "\ufeff" + MONTHS,
        "title,value,timestamp\n" + 'x,1.5,2020-01\n"y, z",2.5,2020-02\n,3.5,2020-03\n',
        "timestamp,value\n2020-03,3.5\n2020-01,1.5\n2020-02,2.5\n",
    ],
    ids=[
        "ours",
        "seed",
        "spaces",
        "CRLF",
        "blank lines",
        "no last newline",
        "BOM",
        "more columns",
        "unordered",
    ],
)
def test_a_file_is_read_in_order_of_time(tmp_path: Path, text: str) -> None:
    found = replay(tmp_path, text).read(0)
    assert [(s.source, s.source_position, s.series_id, s.observation_id, s.value) for s in found] == [
        ("retail", 1, "a", "2020-01", 1.5),
        ("retail", 2, "a", "2020-02", 2.5),
        ("retail", 3, "a", "2020-03", 3.5),
    ]
    assert [s.event_time for s in found] == [datetime(2020, month, 1, tzinfo=UTC) for month in (1, 2, 3)]


def test_a_compressed_file_is_read_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(MONTHS.encode()))
    assert ReplaySource("retail", path, "a").read(0) == replay(tmp_path, MONTHS).read(0)


def test_several_series_are_read_in_order_of_time_across_them(tmp_path: Path) -> None:
    found = replay(tmp_path, TWO_SERIES, series_id="").read(0)
    assert [(s.series_id, s.value) for s in found] == [
        *[("a", 1.0), ("a", 2.0), ("b", 20.0)],
        *[("a", 3.0), ("b", 30.0), ("b", 40.0)],
    ]
    assert [s.source_position for s in found] == [1, 2, 3, 4, 5, 6]


def test_only_the_newest_of_each_series_are_read_where_that_is_asked(tmp_path: Path) -> None:
    found = replay(tmp_path, TWO_SERIES, series_id="", last=2).read(0)
    assert [(s.series_id, s.value) for s in found] == [("a", 2.0), ("a", 3.0), ("b", 30.0), ("b", 40.0)]


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [
        (0, None, [1.5, 2.5, 3.5]),
        (0, 2, [1.5, 2.5]),
        (1, 1, [2.5]),
        (2, 5, [3.5]),
        (3, 1, []),
        (0, 0, []),
    ],
)
def test_a_read_gives_what_follows_and_takes_nothing_away(
    tmp_path: Path, after: int, limit: int | None, expected: list[float]
) -> None:
    source = replay(tmp_path, MONTHS)
    for _ in range(2):
        assert [s.value for s in source.read(after, limit)] == expected


def test_everything_is_available_at_once_unless_there_is_a_pace(tmp_path: Path) -> None:
    source = replay(tmp_path, MONTHS)
    assert [source.available(after) for after in (0, 1, 3)] == [3, 3, 3]


@pytest.mark.parametrize(("primed", "first"), [(0.0, 1), (0.5, 2), (0.75, 3)])
def test_a_primed_replay_gives_its_share_at_once_and_then_a_month_a_read(
    tmp_path: Path, primed: float, first: int
) -> None:
    text = "timestamp,value\n" + "".join(f"2020-0{month},{month}\n" for month in range(1, 5))
    source, after, reads = replay(tmp_path, text, primed=primed), 0, []
    while found := source.read(after):
        reads.append(len(found))
        after = found[-1].source_position
    assert reads == [first] + [1] * (4 - first)


def test_a_month_of_several_series_comes_in_one_read(tmp_path: Path) -> None:
    source, after, reads = replay(tmp_path, TWO_SERIES, series_id="", primed=0.0), 0, []
    while found := source.read(after):
        reads.append([s.observation_id for s in found])
        after = found[-1].source_position
    assert reads == [["2020-01"], ["2020-02"] * 2, ["2020-03"] * 2, ["2020-04"]]


def test_a_priming_that_is_read_in_parts_gives_no_more_than_its_share(tmp_path: Path) -> None:
    source = replay(tmp_path, MONTHS, primed=0.7)
    assert [s.value for s in source.read(0, 1)] == [1.5]
    assert source.available(1) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("n/a", "n/a"), ("", ""), (" 1,5 ", "1,5"), ("12abc", "12abc")],
)
def test_a_value_that_is_no_number_stays_a_text_for_the_quarantine(
    tmp_path: Path, text: str, value: str
) -> None:
    (found,) = replay(tmp_path, f'timestamp,value\n2020-01,"{text}"\n').read(0)
    assert found.value == value


@pytest.mark.parametrize("text", ["yesterday", "", "2020-13", "2020-02-30"])
def test_a_timestamp_that_is_none_goes_on_without_an_event_time(tmp_path: Path, text: str) -> None:
    found = replay(tmp_path, f"timestamp,value\n{text},1\n2020-01,2\n").read(0)
    assert [(s.observation_id, s.event_time is None, s.value) for s in found] == [
        ("2020-01", False, 2.0),
        (text, True, 1.0),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-02", datetime(2020, 2, 1, tzinfo=UTC)),
        ("2020-02-03T04:05:06", datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)),
        ("2020-02-03T04:05:06+02:00", datetime(2020, 2, 3, 2, 5, 6, tzinfo=UTC)),
        ("2020-02-03T04:05:06Z", datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(tmp_path: Path, text: str, expected: datetime) -> None:
    (found,) = replay(tmp_path, f"timestamp,value\n{text},1\n").read(0)
    assert found.event_time == expected
    assert found.event_time.tzinfo is not None


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "gone.csv"
    with pytest.raises(
        SourceError, match=r"'retail'.*gone\.csv does not exist; correct `path` of the source"
    ):
        ReplaySource("retail", path, "a").read(0)


@pytest.mark.parametrize("header", ["", "month,people", "timestamp", "value"])
def test_a_wrong_header_is_shown_with_what_it_must_name(tmp_path: Path, header: str) -> None:
    message = refusal(tmp_path, f"{header}\n2020-01,1\n")
    assert f"data.csv:1 has the header '{header}'" in message
    assert "it must name timestamp,value or input,target" in message


def test_an_empty_file_has_a_wrong_header(tmp_path: Path) -> None:
    assert "has the header ''" in refusal(tmp_path, "")


def test_a_file_of_no_named_series_is_refused_with_the_remedy(tmp_path: Path) -> None:
    assert "set `series_id` of the source" in refusal(tmp_path, MONTHS, series_id="")


@pytest.mark.parametrize("again", ["2020-01", "2020-01-01", "2020-01-01T01:00:00+01:00"])
def test_a_repeated_month_is_refused_with_both_lines(tmp_path: Path, again: str) -> None:
    message = refusal(tmp_path, f"timestamp,value\n2020-01,1\n\n2020-02,2\n{again},3\n")
    assert f"data.csv:5 repeats {again} of series 'a' (first on line 2)" in message
    assert "remove one of the two" in message


def test_one_month_of_two_series_is_no_repetition(tmp_path: Path) -> None:
    assert len(replay(tmp_path, "series_id,timestamp,value\na,2020-01,1\nb,2020-01,2\n").read(0)) == 2


@pytest.mark.parametrize("cells", ["2020-02", "2020-02,2,3"])
def test_a_line_with_another_number_of_cells_is_refused_with_its_number(tmp_path: Path, cells: str) -> None:
    message = refusal(tmp_path, f"timestamp,value\n2020-01,1\n{cells}\n")
    assert f"data.csv:3 has {cells.count(',') + 1} cells, the header has 2" in message


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(MONTHS.encode())[:-10],
        gzip.compress(MONTHS.encode())[:20] + bytes(40),
        MONTHS.encode(),
    ],
    ids=["torn", "overwritten", "not compressed"],
)
def test_a_broken_compressed_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.csv.gz"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"data\.csv\.gz cannot be read"):
        ReplaySource("retail", path, "a").read(0)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"timestamp,value\n\xff\xfe,1\n")
    with pytest.raises(SourceError, match=r"data\.csv cannot be read"):
        ReplaySource("retail", path, "a").read(0)


def test_the_shipped_default_is_the_last_744_months() -> None:
    source = ReplaySource("retail", DATA / "us_retail_employment_monthly.csv", "retail", last=744)
    found = source.read(0)
    assert len(found) == 744
    assert (found[0].observation_id, found[-1].observation_id) == ("1957-10", "2019-09")


def test_the_shipped_148_series_are_read_whole_and_in_order() -> None:
    path = DATA / "us_employment_by_series.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        expected = {
            (row["series_id"], row["timestamp"], float(row["value"])) for row in csv.DictReader(lines)
        }
    found = ReplaySource("employment", path).read(0)
    assert {(s.series_id, s.observation_id, s.value) for s in found} == expected
    assert len(found) == len(expected) == 72_339
    assert len({s.series_id for s in found}) == 148
    assert [s.source_position for s in found] == list(range(1, len(found) + 1))
    times = [s.event_time for s in found]
    assert times == sorted(times)
