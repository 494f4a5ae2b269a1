"""Rules of a setting, in the metadata of its field: its range, and whether a run may change it between sessions."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

RULE = "rule"


@dataclass(frozen=True)
class Rule:
    """The range of a number, both ends included, and what a resumed run may do with the setting."""

    low: float | None = None
    high: float | None = None
    multiple: int = 0
    """Allowed values are its multiples; 0 for all."""
    fixed: bool = False
    """A run keeps this setting: another value needs another run."""

    def allows(self, value: Any) -> bool:
        """Whether a value is in the range; NaN never is."""
        if self.low is None or self.high is None or value is None:
            return True
        return self.low <= value <= self.high and not (self.multiple and value % self.multiple)

    def range(self) -> str:
        """The range as a sentence of a message and the table of the documentation have it; empty without one."""
        if self.low is None or self.high is None:
            return ""
        steps = f", a multiple of {self.multiple}" if self.multiple else ""
        return f"{self.low:.12g} to {self.high:.16g}{steps}"


FREE = Rule()


def setting(default: Any = MISSING, low: float | None = None, high: float | None = None, **rule: Any) -> Any:
    """A field of a config class with its rule.

    Args: rule: `multiple` and `fixed` of `Rule`.
    """
    return field(default=default, metadata={RULE: Rule(low, high, **rule)})


def rule_of(entry: Field[Any]) -> Rule:
    """The rule of a field."""
    return entry.metadata.get(RULE, FREE)


class Ranged:
    """Base of config classes: a number outside its range is refused when the config is made.

    Raises: ValueError with a line for each wrong number.
    """

    def __post_init__(self) -> None:
        entries: Any = fields(self)  # type: ignore[arg-type]  (subclasses are dataclasses)
        wrong = [
            f"{entry.name} is {value:g} and must be in the range {rule_of(entry).range()}"
            for entry in entries
            if not rule_of(entry).allows(value := getattr(self, entry.name))
        ]
        if wrong:
            raise ValueError("; ".join(wrong))
