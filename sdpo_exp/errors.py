"""The one exception for mistakes that a user can mend. Free of heavy imports."""


class UserError(Exception):
    """A mistake in the configuration, the data or a path, told in words that say what to do.

    The command line prints the message without a traceback and exits with a non-zero status.
    """


class Interrupted(UserError):  # noqa: N818 - what the user did, not what went wrong
    """The user stopped the command; what it saved stays."""


class NoPairLeft(UserError):  # noqa: N818 - what there is, not what went wrong
    """Data that is there, of which the choices leave nothing."""


class BadRow(Exception):  # noqa: N818 - what it is, not what went wrong
    """A row of a pair source that cannot be used; `data.on_bad_row` says what follows.

    Args:
        row: the source's own name for it, such as `train.parquet row 17` or a file.
        reason: what is wrong, in words.
    """

    def __init__(self, row: str, reason: str) -> None:
        super().__init__(row, reason)
        self.row, self.reason = row, reason

    def __str__(self) -> str:
        return f"{self.row}: {self.reason}"


def first_line(error: BaseException) -> str:
    """An exception in one line, for a message of ours; its name where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), repr(error))
