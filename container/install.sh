#!/bin/sh
# Makes the virtual environment: install.sh PYTHON DIRECTORY. TORCH_INDEX names another index for torch.
set -eu
python=$1 venv=$2

say() { printf '%s\n' "$*" >&2; }

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  say "hfserve needs Python 3.11 or newer; name one with PYTHON=python3.12 make serve"
  exit 1
}
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  package="$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing $package"
    apt-get update -qq && apt-get install -y -qq "$package" >/dev/null
  else
    say "Python's venv module is missing: sudo apt-get install $package"
    exit 1
  fi
fi
say "setting up $venv (the first time takes some minutes: torch is large)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip install -q --disable-pip-version-check"
# An old pip reads requirements less strictly.
$pip "$(grep "^pip==" requirements-dev.txt)"
say "installing torch"
# shellcheck disable=SC2086
$pip ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} -r requirements-torch.txt
say "installing the other packages"
$pip -r requirements.txt
$pip --no-deps -e .
