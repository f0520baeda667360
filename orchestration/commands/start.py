"""Where `ronghe` begins: signals are taken over before anything that takes time is imported."""

import sys

from orchestration import interruption


def main() -> None:
    """Run the command line. A signal ends it with 128 and its number, as shells expect."""
    interruption.install()
    try:
        try:
            from orchestration.commands.cli import main as run

            run()
            status: object = 0
        except SystemExit as ended:
            status = ended.code
        interruption.check()
    except BaseException:
        # Also what a library made of it: code in C turns an exception in an import into its own.
        if number := interruption.received():
            interruption.end(number)
        raise
    sys.exit(status)
