"""`python -m examples.training_run DIR`: train a run of twelve steps, and write a catalog over it.

cd DIR && ronghe refresh            # pulls the steps, makes the windows, scores all of them
python -m examples.training_run DIR --steps 13
cd DIR && ronghe refresh            # makes again what holds the new step, and nothing else
"""

import argparse
import sys
from pathlib import Path

from examples.training_run.catalog import write_catalog
from examples.training_run.training import steps_in, train

STEPS = 12


def main() -> None:
    """Train what is missing of the run, write the catalog, and say how to go on."""
    parser = argparse.ArgumentParser(prog="python -m examples.training_run")
    parser.add_argument("folder", type=Path, help="where run/ and catalog/ are written")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="how many steps the run shall have"
    )
    options = parser.parse_args()
    folder: Path = options.folder
    try:
        write_catalog(folder)
        train(folder, options.steps)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{folder / 'run'} has the steps {', '.join(map(str, steps_in(folder)))}")
    print(f"go on: cd {folder} && ronghe refresh && ronghe leaderboard")


if __name__ == "__main__":
    main()
