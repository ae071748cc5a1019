#!/bin/sh
# Lints what the image is made with: the Dockerfile, the shell scripts, the workflow.
set -eu
cd "$(dirname "$0")/../.."
venv=.cache/image/tools

if ! cmp -s tests/image/requirements.txt "$venv/installed"; then
  mkdir -p .cache/image
  echo '*' >.cache/image/.gitignore
  "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r tests/image/requirements.txt
  cp tests/image/requirements.txt "$venv/installed"
fi
# Debian's packages are those of the day, and the bill of materials says which; lists of packages stay in early stages.
"$venv/bin/hadolint" --ignore DL3008 --ignore DL3009 Dockerfile
"$venv/bin/shellcheck" container/*.sh container/image/*.sh tests/image/*.sh deploy/sagemaker/*.sh
"$venv/bin/yamllint" --strict --config-data '{extends: default, rules: {line-length: {max: 120}, document-start: disable}}' .github
"$venv/bin/check-jsonschema" --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
