import subprocess
import sys

HEAVY = ("torch", "transformers", "datasets", "lm_eval", "pyarrow", "matplotlib", "safetensors")


def test_nothing_heavy_is_imported_at_module_level() -> None:
    modules = "harness suites scores comparison gates leaderboard plots live_model samples"
    code = (
        f"import sys; from eval_ops import {', '.join(modules.split())}\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
