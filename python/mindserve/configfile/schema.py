"""The config file's JSON schema, for editors and for other programs that write such files."""

from __future__ import annotations

from typing import Any

from mindserve.configfile import derive


def json_schema() -> dict[str, Any]:
    """The schema, by draft 2020-12. What it can't say, such as that two keys exclude each other, only `load` checks."""
    definitions: dict[str, dict[str, Any]] = {}
    schema = derive.root().object_schema(definitions)
    # For what aliases lead to.
    schema["patternProperties"] = {"^x-": {}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Config file of mindserve run",
        **schema,
        "$defs": definitions,
    }
