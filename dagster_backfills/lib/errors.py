"""Errors that are the caller's to mend. The command line and the run log show them without a trace."""


class UserError(Exception):
    """What is wrong, and where (`message`), and what to do about it (`hint`)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint
