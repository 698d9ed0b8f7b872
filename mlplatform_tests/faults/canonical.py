"""A canonical form of states: equal for equal states, whatever order or sharing their pickles have."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from types import BuiltinFunctionType, FunctionType

import numpy as np


def canonical(value: object) -> object:
    """Nested tuples of plain values; floats by their bits."""
    if value is None or isinstance(value, bool | int | str | bytes):
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return ("array", tuple(canonical(each) for each in value.tolist()))
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        return ("array", str(value.dtype), value.shape, digest)
    if isinstance(value, np.generic):
        return canonical(value.item())
    if isinstance(value, dict):
        items = [(canonical(key), canonical(each)) for key, each in value.items()]
        return (type(value).__name__, tuple(sorted(items, key=repr)))
    if isinstance(value, set | frozenset):
        return ("set", tuple(sorted((canonical(each) for each in value), key=repr)))
    if isinstance(value, list | tuple | deque):
        return (type(value).__name__, tuple(canonical(each) for each in value))
    if isinstance(value, random.Random):
        return ("random", canonical(value.getstate()))
    if isinstance(value, type | FunctionType | BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    # Everything else says by itself what it is made of, as it would to pickle.
    made_of = value.__reduce_ex__(4)
    if isinstance(made_of, str):
        return made_of
    maker, arguments, state, items, pairs = (*made_of, None, None, None)[:5]
    return (
        type(value).__qualname__,
        canonical(maker),
        canonical(arguments),
        canonical(state),
        canonical(list(items)) if items is not None else None,
        canonical(dict(pairs)) if pairs is not None else None,
    )
