"""The one exception for what a user can mend, and how a command shows it."""


class InputError(ValueError):
    """What the user gave does not fit.

    The message is one line that says which flag or file, what was expected, what was found and what to do. Commands
    print it after `error:` and exit with status 2, without a traceback.
    """
