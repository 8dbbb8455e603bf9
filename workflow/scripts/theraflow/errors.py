"""The one exception that a user may see."""


class TheraflowError(Exception):
    """A problem in the user's input, told in one sentence: what, in which file or tag, and what to do."""
