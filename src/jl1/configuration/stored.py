"""Stored configs, plain JSON types, hashed and compared; without JAX, so that results can be read quickly."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def json_digest(stored: Mapping[str, Any]) -> str:
    """Hash a config as it is stored, or other plain JSON types, in hexadecimal."""
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "config") -> list[str]:
    """List the fields in which two stored configs differ, as `field: one -> other`."""
    found = []
    for key in sorted({*one, *other}):
        mine, theirs = one.get(key), other.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += differences(mine, theirs, f"{prefix}.{key}")
        elif mine != theirs:
            found.append(f"{prefix}.{key}: {mine!r} -> {theirs!r}")
    return found
