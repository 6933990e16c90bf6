"""The one error that bad input raises."""


class InputError(ValueError):
    """An argument, file or specification is not usable.

    The message is one line: what it is about, the value given, what is allowed. The command line
    prints that line and exits with 2.
    """
