"""Request schemas: strict at any depth, and one fault at most of each list and object."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from foreword.server.batch_items import BatchInput
from foreword.server.bounded_schema import BoundedSchema


class Inner(BoundedSchema):
    names: list[str] = []


class Outer(BoundedSchema):
    values: list[int] | dict[str, list[int]] | None = None
    inner: list[Inner] = []


def faults(cls: type[BoundedSchema], given: Any) -> list[tuple[object, ...]]:
    with pytest.raises(ValidationError) as caught:
        cls.model_validate(given)
    return [error["loc"] for error in caught.value.errors()]


def test_each_list_and_each_object_stops_at_its_first_fault() -> None:
    assert faults(Outer, {"inner": [{"names": [1, 2, 3]}, {"names": [1]}, 5]}) == [("inner", 0, "names", 0)]
    assert len(faults(Outer, {"values": ["x"] * 1000})) == 2
    assert len(faults(Outer, {"values": {str(index): ["x"] * 10 for index in range(1000)}})) == 2
    assert len(faults(BatchInput, {"input": {str(index): 1 for index in range(1000)}})) == 3


def test_an_object_of_thousands_of_fields_is_one_fault() -> None:
    many = {f"a{index}": 1 for index in range(1000)}
    assert faults(Outer, {"inner": [many]}) == [("inner", 0)]
    with pytest.raises(ValidationError, match="an object with at most 64 fields"):
        Outer.model_validate(many)


def test_every_request_schema_is_bounded() -> None:
    def schemas(cls: type[BoundedSchema]) -> list[type[BoundedSchema]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in schemas(sub))]

    import foreword.server.request_schemas as module

    named = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    assert set(named) <= set(schemas(BoundedSchema)) and len(named) > 10
    for cls in named:
        assert unbounded(cls.__pydantic_core_schema__) == []


def unbounded(schema: Any) -> list[Any]:
    """Lists and dictionaries of a core schema that go on after a fault."""
    if isinstance(schema, dict):
        here = [schema] if schema.get("type") in ("list", "dict") and not schema.get("fail_fast") else []
        return here + [found for value in schema.values() for found in unbounded(value)]
    return [found for value in schema for found in unbounded(value)] if isinstance(schema, list | tuple) else []
