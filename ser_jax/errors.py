"""The errors that end a verb with one line instead of a traceback, and the exit codes of the command."""

DONE, FAILED, WRONG_USE, SAVED = 0, 1, 2, 75  # 75 = EX_TEMPFAIL: state is saved, run me again


class UserError(Exception):
    """Something the user can mend. The message names the file or the option and says what to do."""

    exit_code = FAILED


class UsageError(UserError):
    """A wrong option or config value."""

    exit_code = WRONG_USE


def suggestion(word, known):
    """" (did you mean 'kfold'?)" when `word` is close to one of `known`, else ""."""
    import difflib

    close = difflib.get_close_matches(str(word), [str(name) for name in known], 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
