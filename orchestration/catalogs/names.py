"""Which names the catalog allows: they become Dagster's asset and partition keys."""

import re

RECIPE_NAME = re.compile(r"[A-Za-z0-9_]+")
BANNED = re.compile(r"[|\[\],+\s\x00-\x1f\x7f]|\.\.\.")


def name_rule() -> str:
    """Say what partition keys may not hold."""
    return "Dagster's partition keys allow no '|', '[', ']', ',', '+', blanks or '...'"
