#!/bin/sh
# Runs all tests with the pytest that is named: those of the rooms beside those of whole servers, which mostly wait.
set -u
export HF_HUB_OFFLINE=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{
  "$1" tests/unit tests/docs --ignore tests/unit/test_openvino.py
  units=$?
  # In a process of its own: one that has had many of OpenVINO's networks may not survive starting children.
  "$1" tests/unit/test_openvino.py && exit $units
} >"$log" 2>&1 &
units=$!
echo "tests/contract; meanwhile tests/unit and tests/docs, which are shown after it"
"$1" tests/contract
contract=$?
wait $units
units=$?
cat "$log"
[ $contract = 0 ] && [ $units = 0 ]
