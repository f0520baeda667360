"""Where unfinished output and temporary copies lie until they are whole or their process gone."""

from merge_ops.working_folders.folders import (
    GOES_BACK,
    HIDDEN,
    OWNER,
    PREFIX,
    SET_ASIDE,
    make_working_folder,
    remove_all,
    remove_working_folder,
    sweep,
    working_folder,
)

__all__ = [
    "GOES_BACK",
    "HIDDEN",
    "OWNER",
    "PREFIX",
    "SET_ASIDE",
    "make_working_folder",
    "remove_all",
    "remove_working_folder",
    "sweep",
    "working_folder",
]
