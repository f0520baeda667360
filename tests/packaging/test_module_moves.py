"""Names of modules that move below `ronghe` in a wheel, and nothing else of a file."""

import pytest

from module_moves import moved_name, rewritten
from tests.merges.merging import ROOT


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from assets.work import reuse\n", "from ronghe.assets.work import reuse\n"),
        ("from resources import places as p\n", "from ronghe.resources import places as p\n"),
        ("import assets.work as work, os\n", "import ronghe.assets.work as work, os\n"),
        ("融 = 1; from assets import checks\n", "融 = 1; from ronghe.assets import checks\n"),
        (
            'x = {"融合": ["orchestration.definitions"]}\n',
            'x = {"融合": ["ronghe.orchestration.definitions"]}\n',
        ),
        ("def f():\n    from assets import (\n        grid,\n    )\n",
         "def f():\n    from ronghe.assets import (\n        grid,\n    )\n"),
        ('a = "resources.errors", "assets.frame.grid"\n',
         'a = "ronghe.resources.errors", "ronghe.assets.frame.grid"\n'),
    ],
)  # fmt: skip
def test_names_of_modules_move(before: str, after: str):
    assert rewritten(before, ROOT, "file.py") == after


@pytest.mark.parametrize(
    "text",
    [
        "from merge_ops.errors import RongheError\n",
        "from . import assets\n",
        'limits = {"resources": 1, "assets": 2}\n',
        'key = "assets.of_nobody"\n',
        'told = "see orchestration.definitions for more"\n',
        "import assets_of_others\n",
        "# from assets.frame import grid\n\x0c\r\nx = '\u2028'\n",
    ],
)
def test_all_else_stays(text: str):
    assert rewritten(text, ROOT, "file.py") == text


def test_an_import_that_binds_the_old_name_is_refused():
    with pytest.raises(ValueError, match=r"file\.py:2: write `from … import …` for assets\.work"):
        rewritten("x = 1\nimport assets.work\n", ROOT, "file.py")


def test_commands_move():
    assert moved_name("orchestration.commands.cli:main") == "ronghe.orchestration.commands.cli:main"
    assert moved_name("merge_ops.kernels.compile:main") == "merge_ops.kernels.compile:main"
