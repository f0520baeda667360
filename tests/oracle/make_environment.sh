#!/usr/bin/env bash
# Makes the environment that runs mergekit, the oracle of the merge tests.
#
#   bash tests/oracle/make_environment.sh [PYTHON] [FOLDER]
#
# PYTHON is the project's own interpreter (default .venv/bin/python) and FOLDER the environment to
# make (default .venv-oracle). The new environment sees the project's packages through a .pth file,
# so torch and transformers are not downloaded a second time, and what it installs itself stays in
# it: the project's own environment never sees mergekit.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
python=${1:-.venv/bin/python}
folder=${2:-.venv-oracle}

"$python" -m venv --clear --without-pip "$folder"
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
own=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
echo "$packages" > "$own/project.pth"
# pip itself comes through the .pth file; it never removes what lies outside its environment.
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
"$folder/bin/mergekit-yaml" --help > "$folder/help.txt"
echo "$folder runs $("$folder/bin/python" -c \
    'import importlib.metadata as m; print("mergekit", m.version("mergekit"))')"
