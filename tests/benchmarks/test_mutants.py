"""The mutator on a toy package: what a test guards is killed, what none guards survives."""

import ast
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.mutants import main, nearest_tests
from benchmarks.rigs.mutation import mutations

PRICES = '''\
"""Prices."""


def is_dear(price: int) -> bool:
    """Whether a price is above ten."""
    return price > 10


def discount(price: int) -> int:
    """Halve a price of four or more."""
    return price // 2 if price >= 4 else price
'''
TEST = """\
from toy.prices import discount, is_dear


def test_is_dear():
    assert [is_dear(price) for price in (9, 10, 11)] == [False, False, True]


def test_discount():
    assert [discount(price) for price in (1, 9)] == [1, 4]
"""


def git(folder: Path, *arguments: str) -> None:
    settings = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
    subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A repository with one module of two functions, the second half tested."""
    root = tmp_path / "toy tree"
    for name, text in {
        "toy/__init__.py": "",
        "toy/prices.py": PRICES,
        "tests/toy/test_prices.py": TEST,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "toy")
    return root


def run(root: Path, *arguments: str) -> int:
    options = ["--root", str(root), "--packages", "toy", "--jobs", "1", "--preload", "json"]
    return main([*arguments, *options])


def lines_of(output: str, word: str) -> Sequence[str]:
    return [line.strip() for line in output.splitlines() if line.startswith(f"  {word}")]


def test_a_guarded_change_is_killed_and_an_unguarded_one_survives(
    toy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(toy, "--all", str(toy / "toy/prices.py")) == 1
    output = capfd.readouterr().out
    assert "toy/prices.py: 8 killed, 0 hung, 2 survived" in output
    assert "survived tests/toy/test_prices.py:" in output
    survivors = lines_of(output, "toy/prices.py:11")
    assert [line.partition("   in   ")[0] for line in survivors] == [
        "toy/prices.py:11: price >= 4 → (price > 4)",
        "toy/prices.py:11: 4 → 5",
    ]
    assert lines_of(output, "toy/prices.py:6") == []
    assert (toy / "toy/prices.py").read_text() == PRICES, "the checkout is never changed"

    assert run(toy, "--all", str(toy / "toy/prices.py"), "--report") == 0
    assert "10 mutants, 10 of them known" in capfd.readouterr().out


def test_only_changed_lines_are_mutated(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (toy / "toy/prices.py").write_text(PRICES.replace("price > 10", "10 < price"))
    assert run(toy, "HEAD") == 0
    output = capfd.readouterr().out
    assert "4 mutants, 4 killed, 0 survived" in output


def test_a_change_that_never_ends_is_stopped(
    toy: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.mutants.HANG", 3)  # to wait less; slow ones may hang as well
    (toy / "toy/prices.py").write_text(
        "import time\n\n\n"
        "def drain(n):\n    while n > 0:\n        n -= 1\n        time.sleep(0.01)\n"
    )
    (toy / "tests/toy/test_prices.py").write_text(
        "from toy.prices import drain\n\n\ndef test_drain():\n    drain(3)\n"
    )
    assert run(toy, "--all", str(toy / "toy/prices.py"), "--report") == 0
    output = capfd.readouterr().out
    assert " hung" in output
    assert "0 hung" not in output


def test_tests_that_fail_without_a_mutant_are_no_verdict(
    toy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (toy / "tests/toy/test_prices.py").write_text("def test_it():\n    assert False\n")
    assert run(toy, "--all", str(toy / "toy/prices.py")) == 2
    output = capfd.readouterr()
    assert "toy/prices.py:6: price > 10 → (price >= 10)" in output.err
    assert "its tests fail without a mutant:\n" in output.err
    assert "10 mutants, 0 killed, 0 survived" in output.out
    assert "10 without tests that pass" in output.out


def test_a_sample_is_the_same_for_a_seed(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (toy / "tests/toy/test_prices.py").unlink()  # without a test near, none has to be run
    arguments = ["--all", str(toy / "toy/prices.py"), "--report", "--sample", "4"]
    outputs: list[str] = []
    for seed in ("5", "5", "6"):
        assert run(toy, *arguments, "--seed", seed) == 0
        outputs.append(capfd.readouterr().out)
    assert "survived since no test is near:" in outputs[0]
    assert "4 mutants, 0 killed, 4 survived" in outputs[0]
    assert outputs[0] == outputs[1]
    assert outputs[0] != outputs[2]


def test_nearest_tests_come_first(tmp_path: Path) -> None:
    texts = {
        "tests/shop/till/test_prices.py": "",
        "tests/shop/till/test_bills.py": "",
        "tests/shop/test_all.py": "from shop.till.prices import total\nimport shop.stall.weights",
        "tests/shop/test_other.py": "from shop.till.prices_of_old import total",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    prices = ("tests/shop/till/test_prices.py",)
    room = (*prices, "tests/shop/till/test_bills.py")
    assert nearest_tests(tmp_path, "shop/till/prices.py") == prices
    assert set(nearest_tests(tmp_path, "shop/till/taxes.py")) == set(room)
    assert nearest_tests(tmp_path, "shop/till/prices.py", wide=True) == (
        *room,
        "tests/shop/test_all.py",
    )
    assert nearest_tests(tmp_path, "shop/stall/weights.py") == ("tests/shop/test_all.py",)
    assert nearest_tests(tmp_path, "shop/stall/prices.py") == ()


@pytest.mark.parametrize(
    ("source", "changed"),
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a == b != c", ["a != b != c", "a == b == c"]),
        ("a not in b", ["a in b"]),
        ("a + 1", ["a - 1", "a + 2"]),
        ("'text' + a", []),
        ("a and b", ["a or b"]),
        ("not a", ["a"]),
        ("x = True", ["x = False"]),
        ("a if b else c", ["a if (not b) else c"]),
        ("[a for a in b if a]", ["[a for a in b if (not a)]"]),
        ("def f():\n    return 'a'", ["def f():\n    return None"]),
        ("def f(a: L[1] = 0): ...", ["def f(a: L[1] = 1): ..."]),
        ("if a:\n    raise E(b)", ["if (not a):\n    raise E(b)", "if a:\n    pass"]),
        ("f(frozen=True, deep=True)", ["pass", "f(frozen=True, deep=False)"]),
        ("x += 'é'", ["x -= 'é'"]),
        ("f'{a + 1}'", []),
        ("'''Text 1.'''\n__all__ = ['a']\nif TYPE_CHECKING:\n    x = 1", []),
    ],
)
def test_the_changes_of_a_source(source: str, changed: list[str]) -> None:
    found = [change.apply(source.encode()).decode() for change in mutations(source.encode())]
    plain = [ast.unparse(ast.parse(text)) for text in found]
    assert sorted(plain) == sorted(ast.unparse(ast.parse(text)) for text in changed)


def test_places_are_those_of_the_text() -> None:
    source = textwrap.dedent(
        '''
        """第一行"""
        x = "中" if (a
                    <= b) else 3
        '''
    ).encode()
    places = {change.before: (change.line, change.last_line) for change in mutations(source)}
    assert places["3"] == (4, 4)
    assert places["a\n            <= b"] == (3, 4)
