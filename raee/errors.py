"""The one error that a user's input can cause."""


class InputError(ValueError):
    """Bad input: the message is one line that says what, where and what to do.

    The command line prints it without a traceback and exits with 2; tasks never retry it.
    """
