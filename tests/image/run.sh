#!/usr/bin/env bash
# Builds the image without a Docker engine and tests it as SageMaker runs it: `run.sh`, `run.sh --clean` (forgets all).
# What it keeps for the next time (the base, the layers) and its log lie in .cache/image.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=$PWD/.cache/image
image=localhost/hfserve:test
base=localhost/debian:bookworm
tools=(podman buildah runc mmdebstrap)

say() { printf '%s\n' "$*" >&2; }
skip() {
  say "=== SKIPPED: the image is not built and not tested: $* ==="
  exit 0
}

missing() { for tool in "${tools[@]}"; do command -v "$tool" || say "$tool is missing"; done 2>&1 | grep missing || true; }

get_tools() {
  [ "$(id -u)" = 0 ] || skip "this needs root"
  unshare -n true 2>/dev/null || skip "network namespaces are not to be had here"
  [ -z "$(missing)" ] && return
  command -v apt-get >/dev/null || skip "$(missing)"
  say "installing ${tools[*]}"
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${tools[@]}" catatonit; } >"$cache/apt.log" 2>&1 ||
    skip "$(missing) and apt-get could not install it; see $cache/apt.log"
}

configure() {
  export CONTAINERS_CONF=$cache/containers.conf CONTAINERS_STORAGE_CONF=$cache/storage.conf TMPDIR=$cache/tmp
  mkdir -p "$cache/tmp" "$cache/none"
  cat >"$CONTAINERS_CONF" <<EOF
[containers]
default_ulimits = ["nofile=20000:20000","nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
EOF
  cat >"$CONTAINERS_STORAGE_CONF" <<EOF
[storage]
driver = "overlay"
graphroot = "$cache/storage"
runroot = "$cache/run"
EOF
}

# A Debian without documentation, from the machine's own sources, security included.
make_base() {
  podman image exists "$base" && return
  sources=/etc/apt/sources.list.d/debian.sources
  [ -e "$sources" ] || sources=http://deb.debian.org/debian
  say "making the base"
  TMPDIR=$(mktemp -d /dev/shm/base-XXXXXX) sh -c '
    trap "rm -rf $TMPDIR" EXIT
    mmdebstrap --quiet --variant=apt --components=main \
      --dpkgopt="path-exclude=/usr/share/doc/*" --dpkgopt="path-include=/usr/share/doc/*/copyright" \
      --dpkgopt="path-exclude=/usr/share/man/*" --dpkgopt="path-exclude=/usr/share/info/*" \
      --dpkgopt="path-exclude=/usr/share/locale/*" \
      --customize-hook="rm -f \"\$1\"/etc/resolv.conf \"\$1\"/etc/hostname" bookworm "$1" "$2"' - "$cache/base.tar" "$sources"
  podman import --quiet "$cache/base.tar" "$base"
  rm "$cache/base.tar"
}

pip_setting() { python3 -m pip config get "$1" 2>/dev/null || true; }

# What pip needs here, its certificates, index and wheels, goes in as secrets and as a context: none of it may stay.
build() {
  ca=$(pip_setting :env:.cert) && [ -n "$ca" ] || ca=$(pip_setting global.cert)
  wheels=$(pip_setting :env:.find-links) && [ -n "$wheels" ] || wheels=$(pip_setting global.find-links)
  index=$(pip_setting global.index-url)
  [ -d "$wheels" ] || wheels=$cache/none
  [ -e "$ca" ] || ca=/etc/ssl/certs/ca-certificates.crt
  { echo "[global]" && echo "cert = /run/build_ca.pem" && [ -z "$index" ] || echo "index-url = $index"; } >"$cache/pip.conf"
  torch_index=()  # an index that has nothing leaves torch to the wheels
  if compgen -G "$wheels/torch-*+cpu-*.whl" >/dev/null; then torch_index=(--build-arg TORCH_INDEX=file:///wheels/cpu); fi
  say "building (the first time takes some minutes)"
  buildah bud --isolation chroot --network host --layers --format docker \
    --build-context wheels="$wheels" --build-arg BASE_IMAGE="$base" "${torch_index[@]}" \
    --secret id=pip_conf,src="$cache/pip.conf" --secret id=build_ca,src="$ca" \
    --tag "$image" . >"$cache/build.log" 2>&1 || { tail -n 40 "$cache/build.log" >&2; exit 1; }
}

# Certificates that Debian does not have, and names and paths of this machine.
look_for_leaks() {
  root=$(podman image mount "$image")
  {
    printf '%s\n' "$PWD" "$wheels"
    hostname | grep -v localhost || true
    sed -n 's/^index-url = //p' "$cache/pip.conf"
    awk '/BEGIN CERT/ {n = 0} ++n == 5' "$ca" | grep -vxFf "$root/etc/ssl/certs/ca-certificates.crt" || true
  } | awk 'length > 5' >"$cache/private"
  podman history --no-trunc "$image" >"$cache/history"
  podman image inspect -f '{{json .Config}}' "$image" >>"$cache/history"
  found=$({ grep -rlFf "$cache/private" "$root" 2>/dev/null && false; grep -lFf "$cache/private" "$cache/history"; } || true)
  [ ! -s "$root/etc/resolv.conf" ] || found="$found /etc/resolv.conf"
  podman image unmount "$image" >/dev/null
  [ -z "$found" ] || { say "something of this machine is in the image: $found"; exit 1; }
  say "looked for $(wc -l <"$cache/private") things of this machine in the image: none there"
}

write_bill() {
  "$cache/tools/bin/python" container/image/sbom.py "$(podman image mount "$image")" >"$cache/sbom.cdx.json"
  podman image unmount "$image" >/dev/null
  say "bill of materials: $(grep -c '"purl"' "$cache/sbom.cdx.json") parts, in .cache/image/sbom.cdx.json"
}

tell_sizes() {
  say "image: $(podman image inspect -f '{{.Size}}' "$image" | awk '{printf "%.0f MB", $1 / 1e6}'), by layer:"
  podman history --format '{{.Size}}	{{.CreatedBy}}' "$image" | grep -v '^0 B' | sed 's/#(nop) //' | cut -c1-90 >&2
}

main() {
  if [ "${1:-}" = --clean ]; then
    configure
    ! command -v podman >/dev/null || podman system reset --force >/dev/null 2>&1 || true
    rm -rf "$cache"
    return
  fi
  mkdir -p "$cache"
  echo '*' >"$cache/.gitignore"
  get_tools
  sh tests/image/lint.sh
  configure
  began=$SECONDS
  (make_base) || skip "its base could not be made"
  podman run --rm --network host "$base" true || skip "podman runs no container here"
  build
  say "built in $((SECONDS - began)) s"
  look_for_leaks
  tell_sizes
  write_bill
  : >"$cache/figures"
  began=$SECONDS
  # A network of its own with nothing but a loopback device: nothing can be asked of the world, and no rules stay behind.
  HFSERVE_IMAGE=$image HFSERVE_IMAGE_NETWORK=host HFSERVE_IMAGE_FIGURES=$cache/figures unshare --net sh -c \
    'ip link set lo up && exec "$@"' - "${PYTHON:-.venv/bin/python}" -m pytest -p no:cacheprovider tests/image/test_image.py
  say "tested in $((SECONDS - began)) s"
  cat "$cache/figures" >&2
}

main "$@"
