"""What a user can mend is said in one line, with exit status 2 and no traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something that a user can mend; the text is the whole message, on one line.

    It is empty where another process of the same sweep says it.
    """

    status = 2


class Interrupted(UserError):
    """The user stopped the sweep (Ctrl-C or SIGTERM); the text says what is kept."""

    status = 130


def run(main: Callable[[], None]) -> None:
    """Call a script's main() and end the process as the user expects."""
    try:
        main()
    except UserError as error:
        if str(error):
            print(error, file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("stopped; what is finished is kept, the same command goes on", file=sys.stderr)
        sys.exit(Interrupted.status)
