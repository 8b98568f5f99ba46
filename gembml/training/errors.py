"""Why a run ends early. Each message is one sentence or two for the person at the terminal."""


class InputError(Exception):
    """The user asked for something that cannot be done; exit code 2, nothing was changed."""


class DivergedError(Exception):
    """The loss or the prior stopped being finite; exit code 1, checkpoints are kept."""


class TaskFailedError(DivergedError):
    """The meta-gradient from the episodes of a task, which is named, is not finite; exit code 2,
    checkpoints are kept.
    """


class InterruptedRunError(Exception):
    """Ctrl-C: the state was saved; exit code 130."""


class LostClientError(Exception):
    """A client process is gone or does not answer; exit code 1, checkpoints are kept."""
