"""What every secrets provider must be able to do: run each of CHECKS on one that has `CANARY` as the secret
`PRESENT` and nothing under `ABSENT`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mlplatform.io.plugins.secrets_providers import SecretMissing, SecretsProvider

PRESENT, ABSENT, CANARY = "PG_PASSWORD", "NO_SUCH_SECRET", 'canary "\n{{ x }}'


def gives_the_secret_as_it_is(provider: SecretsProvider) -> None:
    assert provider.get(PRESENT) == CANARY


def names_a_missing_one(provider: SecretsProvider) -> None:
    with pytest.raises(SecretMissing, match=ABSENT) as told:
        provider.get(ABSENT)
    assert CANARY not in str(told.value)


def does_not_show_its_secrets(provider: SecretsProvider) -> None:
    assert CANARY not in repr(provider)


CHECKS: dict[str, Callable[[SecretsProvider], None]] = {
    check.__name__: check
    for check in (gives_the_secret_as_it_is, names_a_missing_one, does_not_show_its_secrets)
}
