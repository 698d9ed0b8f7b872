"""Lines out of what a command writes, without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

HIDDEN = "***"
# A line of a secret that is shorter tells nothing, and is found everywhere.
SHORTEST_PART = 4


class Redaction:
    """Replaces secrets, and each line of one that has several."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        values = {secret for secret in secrets if secret}
        parts = {
            part
            for value in values
            for line in value.splitlines()
            if len(part := line.strip()) >= SHORTEST_PART
        }
        # The longest first: one may begin with another.
        found = sorted(values | parts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, found))) if found else None
        self.longest = max((len(value.encode()) for value in found), default=0)

    def __call__(self, text: str) -> str:
        return self._pattern.sub(HIDDEN, text) if self._pattern else text


class Lines:
    """Cuts one stream of bytes into lines.

    Args:
        longest: bytes of a line; what is beyond is left out. A line whose end has not come is kept in memory
            up to here.
    """

    CUT = " … (cut)"

    def __init__(self, redact: Redaction, longest: int) -> None:
        self._redact = redact
        self._longest = longest
        # A secret that begins before the cut is found whole.
        self._most = longest + redact.longest + 4
        self._begun = bytearray()
        self._has_begun = False

    def feed(self, read: bytes) -> Iterator[str]:
        *ended, rest = read.split(b"\n")
        for part in ended:
            self._add(part)
            yield self._take()
        if rest:
            self._add(rest)

    def end(self) -> Iterator[str]:
        """The last line, if nothing ended it."""
        if self._has_begun:
            yield self._take()

    def _add(self, part: bytes) -> None:
        self._has_begun = True
        # One byte more shows that it has to be cut.
        self._begun += part[: max(0, self._most + 1 - len(self._begun))]

    def _take(self) -> str:
        raw = bytes(self._begun)
        self._begun.clear()
        self._has_begun = False
        if len(raw) <= self._longest:
            return self._redact(raw.removesuffix(b"\r").decode(errors="replace"))
        text = self._redact(raw.decode(errors="replace")).encode()
        # Without what may be the beginning of a secret, or of a character.
        whole = len(text) - self._redact.longest - len("\N{REPLACEMENT CHARACTER}".encode())
        return text[: min(self._longest, max(0, whole))].decode(errors="ignore") + self.CUT
