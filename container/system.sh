#!/bin/sh
# Sees to nginx and Java, which the engine mms needs: installed through apt when they are missing and this is root,
# otherwise one sentence with the command to type. Without them hfserve serves on its other engine.
set -eu

packages=
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || packages="nginx-light"
command -v java >/dev/null || [ -x "${JAVA_HOME:-}/bin/java" ] || packages="$packages java"
[ -n "$packages" ] || exit 0

say() { printf '%s\n' "$*" >&2; }

java_package() {
  for version in 17 21; do
    if apt-cache show "openjdk-$version-jre-headless" >/dev/null 2>&1; then
      echo "openjdk-$version-jre-headless"
      return
    fi
  done
  echo default-jre-headless
}

if ! command -v apt-get >/dev/null; then
  say "not found: $packages. Install nginx and a Java 17 runtime for the engine mms; serving without them."
  exit 0
fi
if [ "$(id -u)" != 0 ]; then
  say "for the engine mms type: sudo apt-get install -y $(echo "$packages" | sed "s/java/$(java_package)/")"
  exit 0
fi
apt-get update -qq || { say "apt-get update failed; serving without $packages"; exit 0; }
wanted=$(echo "$packages" | sed "s/java/$(java_package)/")
say "installing $wanted"

# Only the program is wanted: where an init system runs, Debian's package would start a server on port 80.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
mkdir -p /usr/share/man/man1
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null ||
  say "apt-get install $wanted failed; serving without it"
