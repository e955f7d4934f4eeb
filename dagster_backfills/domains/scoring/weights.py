"""Exact weights of the four factors. Not here: their configuration (`settings`)."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

UNIT = 10_000  # represents a weight of 1. Weights are multiples of 1/UNIT, so that sums and ties are exact.


@dataclass(frozen=True)
class Weights:
    """Weights in ten-thousandths, each 0 or more, with a sum of 10,000."""

    attendance_decay: int = 3_500
    missed_sessions: int = 2_500
    time_gaps: int = 2_500
    decline_velocity: int = 1_500

    def __post_init__(self) -> None:
        if min(self.parts) < 0 or sum(self.parts) != UNIT:
            shown = ", ".join(f"{Decimal(p) / UNIT:f}" for p in self.parts)
            raise ValueError(f"scoring weights must be 0 or more and sum to 1, are {shown}")

    @property
    def parts(self) -> tuple[int, int, int, int]:
        """The weights of attendance decay, missed sessions, time gaps and decline velocity, in this order."""
        return self.attendance_decay, self.missed_sessions, self.time_gaps, self.decline_velocity

    @property
    def version(self) -> str:
        """The value of `weights_version`: the weights in percent, such as `35-25-25-15`."""
        return "-".join(f"{(Decimal(p) * 100 / UNIT).normalize():f}" for p in self.parts)

    @classmethod
    def parse(cls, text: str) -> "Weights":
        """Parse four comma-separated decimals with at most four places, such as `0.35,0.25,0.25,0.15`."""
        try:
            scaled = [Decimal(part.strip()) * UNIT for part in text.split(",")]
            whole = [int(s) for s in scaled]
        except (InvalidOperation, ValueError, OverflowError):
            scaled, whole = [], []
        if len(whole) != 4 or any(s != w for s, w in zip(scaled, whole, strict=True)):
            raise ValueError(
                f"scoring weights {text!r} are not four comma-separated decimals with at most four places, "
                "such as 0.35,0.25,0.25,0.15"
            )
        return cls(*whole)
