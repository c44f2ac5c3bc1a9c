"""The one exception that people are meant to read."""


class InputError(ValueError):
    """Bad input: a config value, genome, data file, checkpoint or flag.

    The message is a single line that says what was found (name and value), the
    rule, and the way out. Command lines print it on stderr and exit with code 2.
    """
