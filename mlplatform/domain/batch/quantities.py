"""Kubernetes' notation of amounts."""

from __future__ import annotations

import re

QUANTITY = re.compile(r"^(\d+(?:\.\d+)?)(\D*)$")
# https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
FACTORS = {
    "": 1.0,
    "m": 1e-3,
    **{letter: 1000.0**power for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)},
}


def quantity(text: str) -> float:
    """Kubernetes' notation of an amount (`500m`, `4`, `64Gi`) as a number. Raises ValueError."""
    found = QUANTITY.match(text)
    if found is None or found[2] not in FACTORS:
        raise ValueError(f"{text!r} is not an amount such as 500m, 4 or 64Gi")
    return float(found[1]) * FACTORS[found[2]]
