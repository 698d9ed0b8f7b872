from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from mlplatform.worker.lines import HIDDEN, Lines, Redaction

SECRET = "canary-ü-7f3a"
LONGEST = 40


def cut(pieces: list[bytes], *secrets: str, longest: int = LONGEST) -> list[str]:
    lines = Lines(Redaction(secrets), longest)
    return [text for piece in pieces for text in lines.feed(piece)] + list(lines.end())


def test_lines_end_where_they_end() -> None:
    assert cut([b"one\ntwo\r\n\n", b"th", b"ree\nfour"]) == ["one", "two", "", "three", "four"]
    assert cut([]) == cut([b""]) == []
    assert cut([b"\xff\xfe one \xe2\x82\n"]) == ["\ufffd\ufffd one \ufffd"]


def test_a_long_line_is_cut_and_the_next_one_is_whole() -> None:
    assert cut([b"x" * LONGEST + b"\n"]) == ["x" * LONGEST]
    first, second = cut([b"x" * 1000, b"x" * 1000 + b"\nshort\n"])
    assert first == "x" * LONGEST + Lines.CUT
    assert second == "short"


def test_each_line_of_a_secret_is_hidden_and_short_ones_are_not_looked_for() -> None:
    secret = "-----BEGIN KEY-----\nabcd1234\n}\n-----END KEY-----\n"
    printed = [secret.encode(), b"} and abcd1234\n"]
    assert cut(printed, secret) == [HIDDEN, HIDDEN, "}", HIDDEN, "} and " + HIDDEN]


def test_of_two_secrets_the_longer_is_hidden() -> None:
    assert cut([b"abc abcdef\n"], "abc", "abcdef") == [f"{HIDDEN} {HIDDEN}"]


@given(
    before=st.text(alphabet="ab\n", max_size=2 * LONGEST),
    after=st.text(alphabet="ab\n", max_size=2 * LONGEST),
    times=st.integers(1, 8),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    longest=st.integers(1, LONGEST),
)
@example(before="a" * (LONGEST - 5), after="", times=3, cuts=[], longest=LONGEST)
def test_wherever_it_is_read_or_cut_nothing_of_a_secret_is_left(
    before: str, after: str, times: int, cuts: list[int], longest: int
) -> None:
    written = (before + SECRET * times + after).encode()
    places = sorted({0, *(min(cut_, len(written)) for cut_ in cuts), len(written)})
    pieces = [written[start:end] for start, end in itertools.pairwise(places)]
    lines = cut(pieces, SECRET, longest=longest)
    assert lines == cut([written], SECRET, longest=longest)
    assert "".join(line.removesuffix(Lines.CUT) for line in lines).strip("ab*") == ""
