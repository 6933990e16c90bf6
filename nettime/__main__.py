"""The command `nettime`, also as `python -m nettime`."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the command line, unless a folder of the user's hides a package of ours."""
    from nettime._leaving import Leaving
    from nettime._packages import HiddenPackage, check_not_hidden

    leaving = Leaving()
    try:
        check_not_hidden()
    except HiddenPackage as error:
        print(f"nettime: error: {error}", file=sys.stderr)
        sys.exit(2)
    from analysis.cli import run

    leaving.by(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
