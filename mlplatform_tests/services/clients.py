"""Many clients at once, that send things twice, lose patience, and write down what they were told."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from mlplatform_tests.local.processes import eventually
from mlplatform_tests.services.histories import NOT_NOW, Attempt, Observation, unknown

AGAIN = 0.3
# Of what is sent again, it is one of the last so many: perhaps it is on its way at this moment.
RECENT = 40
GIVES_UP = 0.2
PAUSE_SECONDS = 0.15
SECONDS = 60

# Makes the observation of this number.
Maker = Callable[[random.Random, str], Observation]


class Clients:
    """So many clients of the service at `url`.

    Args:
        patience: seconds after which an attempt is given up.
        pause: seconds between the observations of each.
    """

    def __init__(
        self,
        url: str,
        make: Maker,
        seed: int,
        *,
        count: int = 32,
        patience: float = 2.0,
        pause: float = 0.0,
    ) -> None:
        self._url = url
        self._make = make
        self._seed = seed
        self._count = count
        self._patience = patience
        self._pause = pause
        self._enough = threading.Event()
        self._sent: list[Observation] = []
        self.attempts: list[Attempt] = []

    @contextmanager
    def sending(self) -> Iterator[None]:
        """They send for as long as the block lasts, and end what they have begun."""
        with ThreadPoolExecutor(self._count) as threads:
            running = [threads.submit(self._send, number) for number in range(self._count)]
            try:
                yield
            finally:
                self._enough.set()
            for each in running:
                each.result()

    def wait_for(self, answers: int) -> None:
        """Until so many more answers have come."""
        goal = self.answers + answers
        assert eventually(lambda: self.answers >= goal, SECONDS), f"no answers: {self.attempts[-3:]}"

    @property
    def answers(self) -> int:
        return sum(attempt.status == 200 for attempt in self.attempts)

    def clear_up(self) -> None:
        """Sends again what nobody knows of, until it is answered."""
        with httpx.Client(base_url=self._url, trust_env=False, timeout=SECONDS) as http:
            deadline = time.monotonic() + SECONDS
            while left := unknown(self.attempts):
                for each in left:
                    self._attempt(http, each)
                assert time.monotonic() < deadline, f"{left[0]} is never answered"

    def _send(self, number: int) -> None:
        chance = random.Random(f"{self._seed} {number}")
        made = 0
        with httpx.Client(base_url=self._url, trust_env=False, timeout=self._patience) as http:
            while not self._enough.wait(self._pause):
                if self._sent and chance.random() < AGAIN:
                    observation = chance.choice(self._sent[-RECENT:])
                else:
                    observation, made = self._make(chance, f"{number}-{made}"), made + 1
                    self._sent.append(observation)
                while self._attempt(http, observation).status in (None, NOT_NOW):
                    if chance.random() < GIVES_UP:
                        break
                    time.sleep(PAUSE_SECONDS)

    def _attempt(self, http: httpx.Client, observation: Observation) -> Attempt:
        began = time.monotonic()
        try:
            reply = http.post(observation.route, json=observation.body)
            outcome = reply.status_code, reply.json()
        except httpx.TransportError:
            outcome = ()
        attempt = Attempt(observation, began, time.monotonic(), *outcome)
        self.attempts.append(attempt)
        return attempt
