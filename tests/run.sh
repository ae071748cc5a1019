#!/bin/sh
# The tests, in two lanes side by side, each on cores of its own: servers that shared cores would wait for each other's
# threads. With one core, or with TESTS_IN_TURN=1, one after the other. What the second lane says comes at the end.
set -u
cd "$(dirname "$0")/.."
pytest=${PYTEST:-.venv/bin/pytest}
export HF_HUB_OFFLINE=1

first() { "$@" "$pytest" tests/contract; }
# OpenVINO in a process of its own: one that has had many of its networks may not survive starting children.
second() {
    "$@" "$pytest" tests --ignore tests/contract --ignore tests/unit/test_openvino.py
    rest=$?
    "$@" "$pytest" tests/unit/test_openvino.py && return $rest
}

cores=$(nproc)
if [ "$cores" -lt 2 ] || [ -n "${TESTS_IN_TURN:-}" ] || ! command -v taskset >/dev/null; then
    first env
    status=$?
    second env && exit $status
    exit 1
fi
half=$((cores / 2))
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# What a shell runs in the background ignores SIGINT, which some tests send.
second env --default-signal=INT taskset -c "$half-$((cores - 1))" >"$said" 2>&1 &
other=$!
first env --default-signal=INT taskset -c "0-$((half - 1))"
status=$?
wait "$other"
rest=$?
cat "$said"
[ "$status" -eq 0 ] && [ "$rest" -eq 0 ]
