from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.families import DEFAULT_FAMILY, AbsurdityBand, Families, Family

BAND = AbsurdityBand(width=10.0, minimum_values=3)
MONTHLY = Family("monthly", ("retail", "CEU*"), lags=28, season=12)
FINITE = st.floats(-1e30, 1e30)


@pytest.mark.parametrize(("value", "refused"), [(202.0, False), (202.1, True), (0.0, False), (-0.1, True)])
def test_values_close_together_allow_the_size_of_their_median(value: float, refused: bool) -> None:
    assert BAND.refuses(value, [100.0, 101.0, 102.0]) is refused


@pytest.mark.parametrize(("value", "refused"), [(1_101.0, False), (1_102.0, True), (-1_000.0, True)])
def test_a_wide_range_allows_more_than_the_median(value: float, refused: bool) -> None:
    assert BAND.refuses(value, [50.0, 101.0, 150.0]) is refused


def test_nothing_is_absurd_before_enough_is_known() -> None:
    assert not BAND.refuses(1e30, [1.0, 1.0])
    assert BAND.refuses(1e30, [1.0, 1.0, 1.0])


def test_a_constant_series_may_move_by_its_own_size() -> None:
    assert not BAND.refuses(14.0, [7.0] * 12)
    assert BAND.refuses(14.1, [7.0] * 12)


def test_after_zeros_alone_anything_is_plausible() -> None:
    assert not BAND.refuses(0.1, [0.0] * 12)


@given(values=st.lists(FINITE, min_size=3, max_size=15), value=FINITE)
def test_what_lies_within_the_last_values_is_never_absurd(values: list[float], value: float) -> None:
    assert not BAND.refuses(min(max(value, min(values)), max(values)), values)


@given(
    values=st.lists(st.integers(-1_000, 1_000).map(float), min_size=3, max_size=15),
    value=st.integers(-10_000, 10_000).map(float),
    exponent=st.integers(-20, 20),
)
def test_the_unit_does_not_matter(values: list[float], value: float, exponent: int) -> None:
    unit = 2.0**exponent
    assert BAND.refuses(value, values) == BAND.refuses(unit * value, [unit * each for each in values])


@pytest.mark.parametrize("lags", [0, -1])
def test_a_family_without_lags_is_refused_with_its_name_and_the_remedy(lags: int) -> None:
    with pytest.raises(ValueError, match=f"family 'monthly' has lags: {lags}; a series needs at least 1"):
        replace(MONTHLY, lags=lags, season=None)


@pytest.mark.parametrize(("season", "lags"), [(12, 13), (1, 15), (0, 15), (-1, 15), (14, 15)])
def test_a_season_that_does_not_fit_is_refused_with_the_name_and_the_remedy(season: int, lags: int) -> None:
    with pytest.raises(
        ValueError, match=f"'monthly' has season: {season}, .*season \\+ 2; it has lags: {lags}"
    ):
        replace(MONTHLY, season=season, lags=lags)


@pytest.mark.parametrize(("season", "lags"), [(12, 14), (2, 4), (None, 1)])
def test_the_smallest_lags_that_fit_are_accepted(season: int | None, lags: int) -> None:
    assert replace(MONTHLY, season=season, lags=lags).lags == lags


@pytest.mark.parametrize(
    ("series_id", "name"),
    [
        ("retail", "monthly"),
        ("CEU05", "monthly"),
        ("ceu05", "default"),
        ("retail2", "default"),
        ("", "default"),
    ],
)
def test_a_series_belongs_to_the_family_whose_pattern_it_matches(series_id: str, name: str) -> None:
    assert Families((MONTHLY,)).of(series_id).name == name


def test_of_several_families_the_first_that_matches_has_the_series() -> None:
    families = Families((MONTHLY, Family("all", ("*",)), Family("never", ("retail",))))
    assert families.of("retail").name == "monthly"
    assert families.of("x").name == "all"


def test_the_default_family_is_listed_unless_another_takes_all_series() -> None:
    assert list(Families((MONTHLY,))) == [MONTHLY, DEFAULT_FAMILY]
    assert list(Families((MONTHLY, Family("all", ("*",))))) == [MONTHLY, Family("all", ("*",))]
    assert list(Families()) == [DEFAULT_FAMILY]


def test_the_widest_family_counts_the_default_only_where_it_is_used() -> None:
    assert Families((replace(MONTHLY, lags=14),)).widest == DEFAULT_FAMILY.lags
    assert Families((Family("all", ("*",), lags=3),)).widest == 3


def test_the_version_of_lag_features_changes_with_their_definition_only() -> None:
    assert MONTHLY.version == replace(MONTHLY, name="renamed", band=BAND).version
    assert MONTHLY.version != replace(MONTHLY, lags=29).version


@pytest.mark.parametrize(
    "changed", [{"lags": 29}, {"season": 6}, {"season": None}, {"series": ("retail",)}, {"name": "other"}]
)
def test_the_version_of_all_families_changes_with_each_definition(changed: dict) -> None:
    assert Families((MONTHLY,)).version != Families((replace(MONTHLY, **changed),)).version


def test_a_band_decides_about_admission_and_changes_no_version() -> None:
    assert Families((MONTHLY,)).version == Families((replace(MONTHLY, band=BAND),)).version


def test_a_family_describes_itself_with_its_version() -> None:
    described = MONTHLY.describe()
    assert (described["name"], described["lags"], described["season"]) == ("monthly", 28, 12)
    assert described["version"] == MONTHLY.version
