"""The base of all request schemas: strict, and never a second fault in one list or object, so that no body has a million of them."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, model_validator

from foreword.server.json_body import MAX_FIELDS


def _fail_fast(schema: Any) -> Any:
    """A core schema whose lists and dictionaries, at any depth, stop at their first fault."""
    if isinstance(schema, dict):
        more = {"fail_fast": True} if schema.get("type") in ("list", "dict") else {}
        return {**{name: _fail_fast(value) for name, value in schema.items()}, **more}
    return type(schema)(map(_fail_fast, schema)) if type(schema) in (list, tuple) else schema


class BoundedSchema(BaseModel):
    """Abstract. No type conversion (a quoted number is not a number), unknown fields are errors, and validation of a list or an object stops at its first fault."""

    model_config = ConfigDict(extra="forbid", strict=True)
    apart: ClassVar[frozenset[str]] = frozenset()  # fields that are lists of inputs, each of which may be wrong by itself

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return _fail_fast(handler(source))

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, given: Any) -> Any:
        """Each unknown field is a fault, so there must not be thousands."""
        if isinstance(given, dict) and len(given) > MAX_FIELDS:
            raise ValueError(f"an object with at most {MAX_FIELDS} fields")
        return given
