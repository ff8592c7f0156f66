"""What a setting accepts, in words for a message and as a reader."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

SUFFIXES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting accepts: in words, and as a reader that raises ValueError for everything else."""

    expected: str
    read: Callable[[Any], Any]

    def accepts(self, value: Any) -> bool:
        try:
            self.read(value)
        except (ValueError, OverflowError):
            return False
        return True


def choice(allowed: Any) -> Rule:
    """One of the values of a Literal type."""
    values = get_args(allowed)

    def read(value: Any) -> Any:
        if type(value) not in map(type, values) or value not in values:
            raise ValueError
        return value

    names = [str(value) for value in values]
    return Rule(f"{', '.join(names[:-1])} or {names[-1]}", read)


def whole(low: int, high: int | None = None) -> Rule:
    def read(value: Any) -> int:
        if type(value) is not int or value < low or (high is not None and value > high):
            raise ValueError
        return value

    return Rule(f"a whole number, {low} or more" if high is None else f"a whole number from {low} to {high}", read)


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False) -> Rule:
    """A finite number from `low` to `high`; with `above`, `low` itself is left out."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError
        if not low <= value <= high or (above and value == low):
            raise ValueError
        return float(value)

    if low == -math.inf:
        return Rule("a number", read)
    if high < math.inf:
        return Rule(f"a number from {low:g} to {high:g}", read)
    return Rule(f"a number above {low:g}" if above else f"a number, {low:g} or more", read)


def count(*, auto: bool = False) -> Rule:
    """A positive count such as 3700000000, 3.7e9 or "3.7G"; "none" is None. With `auto`, "auto" stays as it is."""

    def read(value: Any) -> int | Literal["auto"] | None:
        if value == "none":
            return None
        if auto and value == "auto":
            return "auto"
        if isinstance(value, str):
            match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)", value.strip(), re.IGNORECASE)
            if not match:
                raise ValueError
            value = float(match[1]) * SUFFIXES[match[2].upper()]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < math.inf:
            raise ValueError
        return round(value)

    words = '"auto" or "none"' if auto else '"none"'
    return Rule(f'a positive number, as 3700000000, 3.7e9 or "3.7G", or {words}', read)


def or_none(rule: Rule) -> Rule:
    """What `rule` accepts, and "none", which is None."""
    return Rule(f'{rule.expected}, or "none"', lambda value: None if value == "none" else rule.read(value))


def switch() -> Rule:
    def read(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return Rule("true or false", read)


def text() -> Rule:
    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError
        return value.strip()

    return Rule("a text in quotes", read)


def file_name() -> Rule:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not re.fullmatch(r"\w[\w.+-]*", value):
            raise ValueError
        return value

    return Rule("a name of letters, digits and . _ + -", read)


def folders() -> Rule:
    """Names of folders, as pathlib spells them; a single name is a list of one."""

    def read(value: Any) -> tuple[str, ...]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
            raise ValueError
        spelt = tuple(str(Path(name)) for name in names)
        if len({*spelt}) < len(spelt):
            raise ValueError
        return spelt

    return Rule('a list of folders, each once, as ["photos", "more/photos"]', read)


def size() -> Rule:
    def read(value: Any) -> tuple[int, int]:
        if not isinstance(value, list) or len(value) != 2 or any(type(side) is not int or side < 1 for side in value):
            raise ValueError
        return value[0], value[1]

    return Rule("[height, width] in pixels", read)
