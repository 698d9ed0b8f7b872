from __future__ import annotations

from pathlib import Path

import pytest

from mlplatform.io.plugins import plugin
from mlplatform.io.plugins.secrets_providers import SecretMissing
from mlplatform.settings import Settings
from mlplatform_tests.io.plugins.secrets_providers_checks import CANARY, CHECKS, PRESENT


@pytest.mark.parametrize("check", CHECKS)
def test_the_environment_passes_the_checks(check: str) -> None:
    settings = Settings({PRESENT: CANARY})
    CHECKS[check](plugin("secrets_providers", "env")({}, settings, Path()))


def test_an_empty_variable_is_a_missing_secret() -> None:
    provider = plugin("secrets_providers", "env")({}, Settings({PRESENT: ""}), Path())
    with pytest.raises(SecretMissing, match=f"set the environment variable {PRESENT}"):
        provider.get(PRESENT)


def test_a_configuration_is_refused() -> None:
    with pytest.raises(SecretMissing, match="no key 'prefix'"):
        plugin("secrets_providers", "env")({"prefix": "X_"}, Settings({}), Path())
