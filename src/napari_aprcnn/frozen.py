"""Base of what is validated once and never changes: configurations, model cards, readouts."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from napari_aprcnn.errors import ConfigError

__all__ = ["Frozen"]


class Frozen(BaseModel):
    """Base of every configuration: immutable, no unknown keys, errors as `ConfigError`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(type(self).__name__, error)) from error

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed, validated again.

        Raises
        ------
        ConfigError
            If a value is out of range or a name unknown.
        """
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def _sentence(name: str, error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or name
        parts.append(f"{where}: got {item.get('input')!r}; {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(parts)
