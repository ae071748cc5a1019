#!/bin/sh
# Sees to Chromium, in which the tests of the pages open them: installed through apt when it is missing and this is root,
# otherwise one sentence with the command to type. Without it those tests are skipped.
set -eu

command -v chromium >/dev/null && exit 0

say() { printf '%s\n' "$*" >&2; }

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  say "for the tests of the pages type: sudo apt-get install -y chromium"
  exit 0
fi
say "installing chromium"
{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; } ||
  say "apt-get install chromium failed; the tests of the pages are skipped"
