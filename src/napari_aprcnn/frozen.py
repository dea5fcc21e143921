"""Base of what is validated once and never changes: configurations, model cards, readouts."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_aprcnn.errors import ConfigError

__all__ = ["Frozen"]


class Frozen(BaseModel):
    """Base of every configuration: immutable, no unknown keys, errors as `ConfigError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    other_names: ClassVar[Mapping[str, str]] = {}
    """What other programs call a parameter, and what it is here; for error messages."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(type(self), error)) from error

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed, validated again.

        Raises
        ------
        ConfigError
            If a value is out of range or a name unknown.
        """
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def _sentence(model: type[Frozen], error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or model.__name__
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            parts.append(f"there is no parameter {where!r}; {_hint(model, where)}")
            continue
        parts.append(f"{where}: got {item.get('input')!r}; {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(parts)


def _hint(model: type[Frozen], name: str) -> str:
    """The parameter that was meant, as far as one can tell, else all of them."""
    near = model.other_names.get(name)
    if near is None:
        found = difflib.get_close_matches(name, [*model.model_fields, *model.other_names], n=1)
        near = model.other_names.get(found[0], found[0]) if found else None
    return f"did you mean {near}?" if near else f"expected one of {', '.join(model.model_fields)}"
