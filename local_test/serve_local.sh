#!/bin/sh
# serve_local.sh [MODEL_DIR]: serve a model as SageMaker does, on port 8080 (PORT=9000 for another).
# With IMAGE=hfserve:latest in a container; without IMAGE by the `hfserve` of this checkout, or the one on PATH.
set -eu
model=${1:-}
port=${PORT:-8080}

if [ -n "${IMAGE:-}" ]; then
    engine=$(command -v docker || command -v podman) || { echo "serve_local.sh: neither docker nor podman is here" >&2; exit 1; }
    if [ -n "$model" ]; then
        set -- -v "$(cd "$model" && pwd):/opt/ml/model:ro"
    else
        set --
    fi
    exec "$engine" run --rm -p "127.0.0.1:$port:8080" -e HF_TASK "$@" "$IMAGE" serve
fi

here=$(cd "$(dirname "$0")/.." && pwd)
PATH="$here/.venv/bin:$PATH"
exec hfserve serve --port "$port" ${model:+"$model"}
