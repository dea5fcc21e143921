"""Turn a configuration's fields into what a form needs: type, range, choices and the sentence of its docstring."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from inspect import cleandoc
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

__all__ = ["FieldSpec", "field_specs", "get_value", "with_value"]

Kind = Literal["bool", "int", "float", "choice", "text"]


@dataclass(frozen=True)
class FieldSpec:
    """One field of a form.

    Attributes
    ----------
    path
        Names from the configuration down: ``("flows", "n_steps")``.
    kind
        Which input it takes.
    default
        Value of a fresh configuration.
    optional
        ``None`` is allowed and means: decided by the program.
    minimum, maximum
        Allowed range, ``None`` where open.
    choices
        Allowed values of a choice.
    help
        What it does, out of the docstring.
    """

    path: tuple[str, ...]
    kind: Kind
    default: Any
    optional: bool
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    help: str

    @property
    def tooltip(self) -> str:
        """What it does, its range and its default."""
        low = "" if self.minimum is None else f"{self.minimum:g}"
        high = "" if self.maximum is None else f"{self.maximum:g}"
        lines = [self.help]
        if low and high:
            lines.append(f"Range: {low} to {high}.")
        elif low:
            lines.append(f"Range: {low} and above.")
        elif high:
            lines.append(f"Range: up to {high}.")
        default = "auto" if self.default is None else str(self.default)
        lines.append(f"Default: {default}. In the run file: {'.'.join(self.path)}.")
        return "\n".join(lines)


def field_specs(model: type[BaseModel], *, prefix: tuple[str, ...] = ()) -> tuple[FieldSpec, ...]:
    """List the simple fields of a configuration and of the configurations inside it.

    Fields that no single input can show (tuples, mappings of axes) are left out.

    Examples
    --------
    >>> from napari_aprcnn.config import FlowConfig
    >>> [spec.path[0] for spec in field_specs(FlowConfig)][:2]
    ['probability_threshold', 'flow_threshold']
    """
    helps = _docstring_fields(model)
    specs: list[FieldSpec] = []
    for name, field in model.model_fields.items():
        annotation, optional, constraints = _unwrap(field)
        path = (*prefix, name)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if not optional:
                specs.extend(field_specs(annotation, prefix=path))
            continue
        kind = _kind(annotation)
        if kind is None:
            continue
        low, high = _range(constraints)
        specs.append(
            FieldSpec(
                path=path,
                kind=kind,
                default=field.get_default(call_default_factory=True, validated_data={}),
                optional=optional,
                minimum=low,
                maximum=high,
                choices=tuple(str(choice) for choice in get_args(annotation)) if kind == "choice" else (),
                help=helps.get(name, ""),
            )
        )
    return tuple(specs)


def get_value(config: BaseModel, path: tuple[str, ...]) -> Any:
    """Return the value at a path of a configuration."""
    value: Any = config
    for name in path:
        value = getattr(value, name)
    return value


def with_value(config: Any, path: tuple[str, ...], value: Any) -> Any:
    """Return a copy of a configuration with the value at a path changed.

    Raises
    ------
    ConfigError
        If the value is out of range.
    """
    name, *rest = path
    if rest:
        value = with_value(getattr(config, name), tuple(rest), value)
    return config.replace(**{name: value})


def _unwrap(field: FieldInfo) -> tuple[Any, bool, list[Any]]:
    """Take Optional and Annotated apart."""
    annotation, constraints, optional = field.annotation, list(field.metadata), False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *more = get_args(annotation)
            for item in more:
                constraints.extend(getattr(item, "metadata", [item]))
        elif origin in (Union, UnionType) and NoneType in get_args(annotation):
            rest = [choice for choice in get_args(annotation) if choice is not NoneType]
            if len(rest) != 1:
                return None, True, constraints
            annotation, optional = rest[0], True
        else:
            return annotation, optional, constraints


def _kind(annotation: Any) -> Kind | None:
    if get_origin(annotation) is Literal:
        return "choice"
    kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}
    return kinds.get(annotation)


def _range(constraints: list[Any]) -> tuple[float | None, float | None]:
    low = high = None
    for item in constraints:
        if isinstance(item, Ge | Gt):
            low = float(item.ge if isinstance(item, Ge) else item.gt)  # type: ignore[arg-type]
        elif isinstance(item, Le | Lt):
            high = float(item.le if isinstance(item, Le) else item.lt)  # type: ignore[arg-type]
    return low, high


@cache
def _docstring_fields(model: type[BaseModel]) -> dict[str, str]:
    """Read the Attributes section of a numpy-style docstring."""
    found: dict[str, str] = {}
    section = re.split(r"^Attributes\n-+\n", cleandoc(model.__doc__ or ""), flags=re.MULTILINE)
    if len(section) < 2:
        return found
    for entry in re.finditer(r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?)+)", section[1], flags=re.MULTILINE):
        text = " ".join(entry[2].split()).replace("``", "").replace("`", "")
        for name in entry[1].split(","):
            found[name.strip()] = text
    return found
