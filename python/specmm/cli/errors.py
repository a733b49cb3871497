"""What a user can get wrong."""


class UsageError(Exception):
    """An argument that cannot work; the message names it. The command ends with code 2."""
