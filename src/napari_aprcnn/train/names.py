"""Names of models: what files can be called. No torch here."""

from __future__ import annotations

from napari_aprcnn.errors import ConfigError

__all__ = ["check_name"]

_LONGEST = 200


def check_name(name: str) -> None:
    """Refuse a name that no file can have, or that leads to another folder.

    Raises
    ------
    ConfigError
        If it is not usable.

    Examples
    --------
    >>> check_name("mine-3d")
    """
    if not name.strip(". ") or len(name) > _LONGEST or any(letter in name for letter in "/\\\0"):
        raise ConfigError(
            f"got the name {name[:60]!r}; expected one that files can have, of 1 to {_LONGEST} characters without / "
            "and \\: the folder goes to --output"
        )
