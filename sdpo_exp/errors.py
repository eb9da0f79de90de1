"""The one exception for mistakes that a user can mend. Free of heavy imports."""


class UserError(Exception):
    """A mistake in the configuration, the data or a path, told in words that say what to do.

    The command line prints the message without a traceback and exits with a non-zero status.
    """
