"""The weights of the four factors, exact. Not here: where they are configured, and what they weigh."""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

UNIT = 10_000  # a weight of 1; weights are whole multiples of 1/UNIT, so that sums and ties are exact


@dataclass(frozen=True)
class Weights:
    """Weights of the factors in ten-thousandths, each 0 or more, summing to 10,000."""

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
        """In the order attendance decay, missed sessions, time gaps, decline velocity."""
        return self.attendance_decay, self.missed_sessions, self.time_gaps, self.decline_velocity

    @property
    def version(self) -> str:
        """What a history row records: the weights themselves in percent, such as `35-25-25-15`."""
        return "-".join(f"{(Decimal(p) * 100 / UNIT).normalize():f}" for p in self.parts)

    @classmethod
    def parse(cls, text: str) -> "Weights":
        """Four decimals with commas between them, such as `0.35,0.25,0.25,0.15`; at most four places each."""
        try:
            scaled = [Decimal(part.strip()) * UNIT for part in text.split(",")]
            whole = [int(s) for s in scaled]
        except (InvalidOperation, ValueError, OverflowError):
            scaled, whole = [], []
        if len(whole) != 4 or any(s != w for s, w in zip(scaled, whole, strict=True)):
            raise ValueError(
                f"scoring weights {text!r} are not four decimals with at most four places and commas between "
                "them, such as 0.35,0.25,0.25,0.15"
            )
        return cls(*whole)
