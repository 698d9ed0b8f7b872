from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from mlplatform.domain.observations import SourceError
from mlplatform.io.sources.price import PriceSource, PriceUnavailable
from mlplatform_tests.io.sources.exchange import PRICE, Exchange, running_exchange


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with running_exchange() as running:
        yield running


def source(exchange: Exchange, **options) -> PriceSource:
    return PriceSource("bitcoin", "BTC", exchange.url, **{"cache_seconds": 0.0, **options})


def failure(exchange: Exchange, **options) -> PriceUnavailable:
    with pytest.raises(PriceUnavailable) as caught:
        source(exchange, **options).spot()
    assert "price of BTC" in str(caught.value)
    return caught.value


def test_the_price_is_what_the_exchange_says_it_is(exchange: Exchange) -> None:
    price = source(exchange).spot()
    assert (price.currency, price.amount) == ("BTC", 97123.45)
    assert exchange.asked == ["/v2/prices/BTC-USD/spot"]


def test_an_unknown_currency_stays_404(exchange: Exchange) -> None:
    exchange.status = 404
    assert failure(exchange).status == 404


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "17"}, 17),
        ({}, 60),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 60),
        ({"Retry-After": "²"}, 60),
        ({"Retry-After": "-5"}, 60),
    ],
)
def test_too_many_requests_become_503_with_the_time_to_wait(
    exchange: Exchange, headers: dict[str, str], seconds: int
) -> None:
    exchange.status, exchange.headers = 429, headers
    error = failure(exchange)
    assert (error.status, error.retry_after) == (503, seconds)


@pytest.mark.parametrize("status", [400, 401, 500, 502, 503])
def test_an_exchange_that_fails_becomes_502(exchange: Exchange, status: int) -> None:
    exchange.status = status
    error = failure(exchange)
    assert (error.status, error.retry_after) == (502, None)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>maintenance</html>",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"data": null}',
        b'{"data": {"amount": null}}',
        b'{"data": {"amount": "a lot"}}',
        b'{"data": {"amount": "NaN"}}',
        b'{"data": {"amount": NaN}}',
        b'{"data": {"amount": "Infinity"}}',
        b'{"data": {"amount": 1' + 400 * b"0" + b"}}",
    ],
)
def test_an_answer_that_is_no_price_becomes_502(exchange: Exchange, body: bytes) -> None:
    exchange.body = body
    assert failure(exchange).status == 502


@pytest.mark.parametrize("part", ["delay_before", "delay_within"])
def test_an_answer_that_does_not_come_in_time_becomes_504(exchange: Exchange, part: str) -> None:
    setattr(exchange, part, 0.6)
    started = time.monotonic()
    assert failure(exchange, timeout=0.2).status == 504
    assert time.monotonic() - started < 0.55


def test_no_network_becomes_503() -> None:
    error = failure(Exchange(url="http://127.0.0.1:1"))
    assert (error.status, error.retry_after) == (503, None)
    assert "http://127.0.0.1:1 cannot be reached; check the network" in str(error)


def test_a_failure_is_one_of_a_source(exchange: Exchange) -> None:
    assert isinstance(failure(Exchange(url="http://127.0.0.1:1")), SourceError)


def test_answers_are_kept_for_a_while_to_spare_the_exchange(exchange: Exchange) -> None:
    cached = source(exchange, cache_seconds=60.0)
    first = cached.spot()
    exchange.status = 500
    assert cached.spot() == first
    assert len(exchange.asked) == 1


def test_a_kept_answer_is_replaced_when_it_is_old(exchange: Exchange) -> None:
    cached = source(exchange, cache_seconds=0.05)
    cached.spot()
    time.sleep(0.06)
    exchange.body = PRICE.replace(b"97123.45", b"1.5")
    assert cached.spot().amount == 1.5


def test_a_failure_is_not_kept(exchange: Exchange) -> None:
    cached = source(exchange, cache_seconds=60.0)
    exchange.status = 500
    with pytest.raises(PriceUnavailable):
        cached.spot()
    exchange.status = 200
    assert cached.spot().amount == 97123.45


def test_a_price_becomes_an_observation_named_after_its_minute(exchange: Exchange) -> None:
    (found,) = source(exchange).read(0)
    minute = int(found.event_time.timestamp() // 60)
    assert (found.source, found.series_id, found.value) == ("bitcoin", "BTC-USD", 97123.45)
    assert (found.source_position, found.observation_id) == (minute, str(minute))
    assert found.event_time.tzinfo is not None


def test_a_minute_is_observed_once_however_often_it_is_asked_for(exchange: Exchange) -> None:
    prices = source(exchange)
    (found,) = prices.read(0)
    asked = len(exchange.asked)
    again = prices.read(found.source_position)
    # Unless the test has met the turn of a minute.
    assert [s.source_position for s in again] == [found.source_position + 1] * len(again)
    assert len(exchange.asked) == asked + len(again)


def test_a_position_of_the_future_gives_nothing_and_asks_nobody(exchange: Exchange) -> None:
    prices = source(exchange)
    future = prices.available(0) + 10
    assert prices.available(future) == future
    assert prices.read(future) == []
    assert prices.read(0, limit=0) == []
    assert exchange.asked == []


@pytest.mark.parametrize("currency", ["", "btc", "B", "BTC-USD", "../accounts", "ELEVENCHARS"])
def test_what_is_no_currency_is_refused_before_anyone_is_asked(currency: str) -> None:
    with pytest.raises(SourceError, match=r"'bitcoin'.*is not a currency such as BTC"):
        PriceSource("bitcoin", currency)
