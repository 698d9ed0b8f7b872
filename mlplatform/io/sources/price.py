"""Live spot prices of Coinbase."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from mlplatform.domain.observations import SourceError, Submission

COINBASE = "https://api.coinbase.com"
TIMEOUT_SECONDS = 10.0
CACHE_SECONDS = 5.0


class PriceUnavailable(SourceError):
    """No price; `status` is the HTTP status to tell a client, `retry_after` seconds if upstream gave them."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True)
class Price:
    """Price of one unit of a currency in US dollars."""

    currency: str
    amount: float
    at: datetime


class PriceSource:
    """One observation a minute of a currency's spot price, as series `{CURRENCY}-USD`.

    Positions are minutes since 1970, so that a minute is observed once however often it is asked
    for. Answers are kept for a few seconds, to spare the upstream service.
    """

    def __init__(
        self,
        name: str,
        currency: str,
        endpoint_url: str = COINBASE,
        timeout: float = TIMEOUT_SECONDS,
        cache_seconds: float = CACHE_SECONDS,
    ) -> None:
        if not re.fullmatch(r"[A-Z0-9]{2,10}", currency):
            raise SourceError(f"source {name!r}: {currency!r} is not a currency such as BTC")
        self.name = name
        self._currency = currency
        self._endpoint_url = endpoint_url
        self._timeout = timeout
        self._cache_seconds = cache_seconds
        self._cached: tuple[float, Price] | None = None

    def available(self, after: int) -> int:
        return max(after, _minute(datetime.now(UTC)))

    def read(self, after: int, limit: int | None = None) -> list[Submission]:
        if limit == 0 or self.available(after) == after:
            return []
        price = self.spot()
        position = _minute(price.at)
        if position <= after:
            return []
        series_id = f"{price.currency}-USD"
        return [Submission(self.name, position, series_id, f"{position}", price.at, price.amount)]

    def spot(self) -> Price:
        """The price now.

        Raises:
            PriceUnavailable: 404 unknown currency; 503 too many requests or no network; 502 a broken
                answer; 504 no answer in time.
        """
        if self._cached and time.monotonic() - self._cached[0] < self._cache_seconds:
            return self._cached[1]
        price = self._fetch()
        self._cached = (time.monotonic(), price)
        return price

    def _fetch(self) -> Price:
        import requests

        what = f"source {self.name!r}: price of {self._currency}"
        deadline = time.monotonic() + self._timeout
        try:
            answer = requests.get(
                f"{self._endpoint_url}/v2/prices/{self._currency}-USD/spot", timeout=self._timeout
            )
        except requests.RequestException as error:
            # An answer that stops in its middle is no `requests.Timeout`.
            if isinstance(error, requests.Timeout) or time.monotonic() >= deadline:
                raise PriceUnavailable(504, f"{what}: no answer within {self._timeout:g} s") from error
            raise PriceUnavailable(
                503, f"{what}: {self._endpoint_url} cannot be reached; check the network"
            ) from error
        if answer.status_code == 404:
            raise PriceUnavailable(404, f"{what}: the exchange knows no such currency")
        if answer.status_code == 429:
            seconds = answer.headers.get("Retry-After", "")
            raise PriceUnavailable(
                503, f"{what}: too many requests", int(seconds) if seconds.isdecimal() else 60
            )
        if answer.status_code != 200:
            raise PriceUnavailable(502, f"{what}: the exchange answered {answer.status_code}")
        try:
            amount = float(answer.json()["data"]["amount"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise PriceUnavailable(502, f"{what}: the exchange's answer is not a price") from error
        if not math.isfinite(amount):
            raise PriceUnavailable(502, f"{what}: the exchange's answer is not a price")
        return Price(self._currency, amount, datetime.now(UTC))


def _minute(at: datetime) -> int:
    return int(at.timestamp() // 60)
