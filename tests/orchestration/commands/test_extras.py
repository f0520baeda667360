"""Which extra brings what: the table of the messages, pyproject.toml and the imports agree."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest

from orchestration.commands.extras import EXTRAS, advice, extra_of, require
from tests.merges.merging import ROOT

PACKAGES = ("merge_ops", "eval_ops", "orchestration", "assets", "resources")
DISTRIBUTIONS = packages_distributions()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def distributions(requirements: list[str]) -> set[str]:
    """Names of what is required, without versions and extras."""
    return {re.split(r"[\[<>=]", each)[0] for each in requirements}


def distribution_of(module: str) -> str:
    """The package that a module comes from, as pyproject.toml names it."""
    name = DISTRIBUTIONS.get(module, [module])[0].lower().replace("_", "-")
    return {"psycopg2": "psycopg2-binary"}.get(name, name)


def imported() -> Iterator[str]:
    """Every module of others that our packages import, anywhere."""
    for name in PACKAGES:
        for file in (ROOT / name).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    yield from (each.name.split(".")[0] for each in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    yield node.module.split(".")[0]


def test_everything_imported_comes_with_the_package_or_an_extra():
    known = distributions(PROJECT["dependencies"])
    for module in {*imported()} - {*sys.stdlib_module_names, *PACKAGES}:
        assert extra_of(module) or distribution_of(module) in known, module


@pytest.mark.parametrize(
    ("extra", "module"), [(extra, each) for extra, modules in EXTRAS.items() for each in modules]
)
def test_the_extra_brings_the_module(extra: str, module: str):
    brought = distributions(PROJECT["optional-dependencies"][extra])
    # These come with what is asked for: Dagster's own, its database, its server, its client.
    through = {
        "dagster_shared": "dagster", "sqlalchemy": "dagster", "uvicorn": "dagster-webserver",
        "kubernetes": "dagster-k8s",
    }  # fmt: skip
    assert through.get(module, distribution_of(module)) in brought
    assert distribution_of(module) not in distributions(PROJECT["dependencies"])


def test_a_module_that_no_extra_brings_stays_an_error():
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught:
        require("no_such_module")
    assert advice("ronghe merge", caught.value) is None


def test_what_is_there_is_not_asked_for():
    require("numpy")
