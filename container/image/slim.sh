#!/bin/sh
# Takes tests, headers and the like out of what pip installed under a prefix, and compiles what is left: slim.sh PREFIX
set -eu
prefix=$1

find "$prefix" -depth -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' -o -path '*/torch/share' \) \
  -exec rm -rf {} +
find "$prefix" -type f \( -name '*.a' -o -name '*.pyi' \) -delete
find "$prefix" -depth -path '*/torch/bin/*' ! -name torch_shm_manager -delete
# Unchecked, so that a file's time does not count: a read-only image could not write them again.
# Models' own modules are many, and each is compiled in milliseconds when its model is loaded. What is written for a
# newer Python is not compiled, and not missed.
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/transformers/models/(?!auto/)' "$prefix"/lib >/dev/null || true
