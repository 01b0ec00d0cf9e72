"""Marks a settings field whose class depends on its `kind`, such as a reward or an objective.

In: the names of the kinds and the settings class of each. Out: a value of the kind's own class, checked by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema


@dataclass(frozen=True, slots=True)
class Kinds:
    """Marks a field whose settings class depends on its `kind`: `{kind: NAME, …}`, or NAME alone.

    Use it as `Annotated[SerializeAsAny[Base], Kinds(...)]`, where every kind's class is a subclass of `Base` and has a
    field `kind` whose default is the kind's name.

    names:    returns the names of all kinds.
    class_of: returns the settings class of a kind that is among the names.
    default:  the kind of a mapping that names none; "": each must name one.
    """

    names: Callable[[], Sequence[str]]
    class_of: Callable[[str], type[BaseModel]]
    default: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Pydantic's hook: the kind's own class reads the value before the field's annotation sees it."""
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def of(self, value: Any) -> type[BaseModel] | None:
        """The settings class that reads `value`; None if its kind is unknown."""
        if isinstance(value, BaseModel):
            return type(value)
        kind = value.get("kind", self.default) if isinstance(value, Mapping) else value
        return self.class_of(kind) if isinstance(kind, str) and kind in self.names() else None

    def _read(self, value: Any) -> Any:
        if not isinstance(value, str | Mapping):
            return value
        found = self.of(value)
        if found is None:
            kind, location = (value, ()) if isinstance(value, str) else (value.get("kind"), ("kind",))
            unknown = PydanticCustomError("unknown_kind", "no such kind", {"kinds": list(self.names())})
            raise ValidationError.from_exception_data(
                "kind", [InitErrorDetails(type=unknown, loc=location, input=kind)]
            )
        return found.model_validate({"kind": value} if isinstance(value, str) else value)
