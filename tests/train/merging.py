"""A recipe that differs from another in some settings."""

from typing import Any


def merged(data: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested mappings changed key by key."""
    result = dict(data)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
