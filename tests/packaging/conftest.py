"""A wheel, built from a copy of the sources, and an environment that holds it and what it needs."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.merges.merging import ROOT

PACKAGES = ("merge_ops", "eval_ops", "orchestration", "assets", "resources")
FILES = ("pyproject.toml", "hatch_build.py", "module_moves.py", "README.md", "LICENSE")


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and the folder its commands run in."""

    folder: Path
    home: Path

    @property
    def packages(self) -> Path:
        """The folder `site-packages`."""
        return next(self.folder.glob("lib/python3.*/site-packages"))

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this environment; no other program is on its PATH."""
        return subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            cwd=self.home,
            env={"PATH": str(self.folder / "bin"), "HOME": str(self.home), **variables},
            capture_output=True,
            text=True,
        )


def pip(*arguments: str) -> None:
    """Run pip as the package index is set up here; what it says is shown where it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=os.sep)
    assert done.returncode == 0, done.stdout + done.stderr


def copy_of_the_sources(into: Path) -> Path:
    """What a wheel is built from, without anything that was compiled in the checkout."""
    for name in PACKAGES:
        left_out = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, into / name, ignore=left_out)
    for name in FILES:
        shutil.copy(ROOT / name, into)
    return into


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel for this machine."""
    sources = copy_of_the_sources(tmp_path_factory.mktemp("sources"))
    out = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--wheel-dir", str(out), str(sources))
    return next(out.glob("*.whl"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel and its dependencies alone; not even pip is in it."""
    environment = new_environment(tmp_path_factory.mktemp("installed"))
    constraints = ("-c", str(ROOT / "constraints.txt"))
    python = str(environment.folder / "bin" / "python")
    pip("--python", python, "install", "--no-compile", *constraints, str(wheel))
    return environment


@pytest.fixture(scope="session")
def complete(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel, beside the packages of the environment that runs the tests.

    They are on the path by a .pth file; those of that folder, and with them the editable install,
    do not count then.
    """
    environment = new_environment(tmp_path_factory.mktemp("complete"))
    others = Path(pytest.__file__).parent.parent
    (environment.packages / "others.pth").write_text(f"{others}\n")
    python = str(environment.folder / "bin" / "python")
    pip("--python", python, "install", "--no-compile", "--no-deps", str(wheel))
    return environment


def new_environment(root: Path) -> Environment:
    """An empty environment."""
    home = root / "home"
    home.mkdir()
    command = [sys.executable, "-m", "venv", "--without-pip", str(root / "venv")]
    subprocess.run(command, check=True)
    return Environment(root / "venv", home)
