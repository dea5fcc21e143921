"""Conditions such as ``volume_um3 > 100 and sphericity < 0.8``: read by a small parser of their own, never evaluated.

Grammar, loosest first: ``or``, ``and``, ``not``, comparisons (``<  <=  >  >=  ==  !=``, also chained), ``+ -``,
``* /``, sign, and at the end numbers, names of columns and parentheses. ``&`` and ``|`` are taken for ``and``, ``or``.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_aprcnn.errors import ConfigError

__all__ = ["filter_rows"]

_LONGEST = 2000
_DEEPEST = 40
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])|(?P<name>[^\W\d]\w*)"
    r"|(?P<sign><=|>=|==|!=|&&|\|\||[<>=&|()+\-*/]))",
    re.ASCII,
)
_WORDS = {"&": "and", "&&": "and", "|": "or", "||": "or", "=": "=="}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip
_Value = NDArray[Any]


def filter_rows(expression: str, columns: Mapping[str, NDArray[Any]], n_rows: int) -> NDArray[np.bool_]:
    """Say for which rows a condition holds.

    Parameters
    ----------
    expression
        The condition; an empty one holds everywhere.
    columns
        Columns by name, all of length `n_rows`.
    n_rows
        Length of the result.

    Returns
    -------
    (N,) bool
        A comparison with NaN does not hold.

    Raises
    ------
    ConfigError
        If it cannot be read, names an unknown column, or is a number rather than a condition.

    Examples
    --------
    >>> volume = np.array([50.0, 150.0, 300.0])
    >>> filter_rows("100 < volume_um3 <= 300", {"volume_um3": volume}, 3).tolist()
    [False, True, True]
    """
    if not expression.strip():
        return np.ones(n_rows, bool)
    if len(expression) > _LONGEST:
        raise ConfigError(f"the filter has {len(expression)} characters, expected at most {_LONGEST}; shorten it")
    parser = _Parser(_tokens(expression), columns)
    with np.errstate(all="ignore"):
        result = parser.either()
    if parser.kind != "end":
        raise ConfigError(f"the filter cannot be read at {parser.text!r}; expected and, or, a comparison, or the end")
    if result.dtype != np.bool_:
        raise ConfigError(f"the filter {expression.strip()!r} is no condition; compare it, for example: label > 10")
    return np.broadcast_to(result, (n_rows,)).copy()


def _tokens(expression: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    text, place = expression.rstrip(), 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ConfigError(
                f"the filter cannot be read at {text[place:].strip()[:20]!r}; expected for example: "
                "volume_um3 > 100 and sphericity < 0.8"
            )
        kind = str(found.lastgroup)
        word = found[kind]
        if kind == "name" and word.lower() in ("and", "or", "not"):
            kind, word = "sign", word.lower()
        tokens.append((kind, _WORDS.get(word, word) if kind == "sign" else word))
        place = found.end()
    return [*tokens, ("end", "the end")]


class _Parser:
    """Recursive descent over the tokens; values are arrays, so the whole column is worked on at once."""

    def __init__(self, tokens: list[tuple[str, str]], columns: Mapping[str, NDArray[Any]]) -> None:
        self._tokens, self._columns, self._at, self._depth = tokens, columns, 0, 0

    @property
    def kind(self) -> str:
        return self._tokens[self._at][0]

    @property
    def text(self) -> str:
        return self._tokens[self._at][1]

    def _take(self, *words: str) -> str:
        """Return the sign that comes next if it is one of these, and step over it."""
        if self.kind == "sign" and self.text in words:
            self._at += 1
            return self._tokens[self._at - 1][1]
        return ""

    def either(self) -> _Value:
        value = self._both()
        while self._take("or"):
            value = _condition(value, "or") | _condition(self._both(), "or")
        return value

    def _both(self) -> _Value:
        value = self._negated()
        while self._take("and"):
            value = _condition(value, "and") & _condition(self._negated(), "and")
        return value

    def _negated(self) -> _Value:
        turns = 0
        while self._take("not"):
            turns += 1
        value = self._compared()
        if turns:
            value = _condition(value, "not")
        return ~value if turns % 2 else value

    def _compared(self) -> _Value:
        left = self._sum()
        result: _Value | None = None
        while sign := self._take(*_COMPARE):
            right = self._sum()
            held = np.asarray(_COMPARE[sign](_number(left, sign), _number(right, sign)))
            # Not a number is neither equal nor different.
            held = held & ~(np.isnan(left) | np.isnan(right))
            result = held if result is None else result & held
            left = right
        return left if result is None else result

    def _sum(self) -> _Value:
        value = self._product()
        while sign := self._take("+", "-"):
            value = np.asarray(_ARITHMETIC[sign](_number(value, sign), _number(self._product(), sign)))
        return value

    def _product(self) -> _Value:
        value = self._signed()
        while sign := self._take("*", "/"):
            value = np.asarray(_ARITHMETIC[sign](_number(value, sign), _number(self._signed(), sign)))
        return value

    def _signed(self) -> _Value:
        minus = signs = 0
        while sign := self._take("+", "-"):
            signs += 1
            minus += sign == "-"
        value = self._single()
        if signs:
            value = _number(value, "the sign")
        return -value if minus % 2 else value

    def _single(self) -> _Value:
        if self._take("("):
            self._depth += 1
            if self._depth > _DEEPEST:
                raise ConfigError(f"the filter has more than {_DEEPEST} parentheses inside each other; simplify it")
            value = self.either()
            if not self._take(")"):
                raise ConfigError(f"the filter lacks a closing parenthesis before {self.text!r}; add it")
            self._depth -= 1
            return value
        kind, text = self._tokens[self._at]
        if kind == "number":
            self._at += 1
            return np.asarray(float(text))
        if kind == "name":
            self._at += 1
            return self._column(text)
        raise ConfigError(f"the filter cannot be read at {text!r}; expected a column or a number")

    def _column(self, name: str) -> _Value:
        column = self._columns.get(name)
        if column is None:
            near = get_close_matches(name, list(self._columns), n=1)
            hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(self._columns)}"
            raise ConfigError(f"there is no column {name!r}; {hint}")
        # A column of yes and no is a condition as it is, and 0 or 1 in a comparison.
        return np.asarray(column) if column.dtype == np.bool_ else np.asarray(column, np.float64)


def _condition(value: _Value, word: str) -> _Value:
    if value.dtype != np.bool_:
        raise ConfigError(f"the filter has a number beside {word!r}, expected a condition such as label > 10")
    return value


def _number(value: _Value, word: str) -> _Value:
    # Comparisons of comparisons are more likely a forgotten "and"; columns of yes and no pass.
    return value.astype(np.float64) if value.dtype == np.bool_ else value
