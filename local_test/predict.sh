#!/bin/sh
# predict.sh PAYLOAD [CONTENT_TYPE]: send a file of payloads/ (or any other) to /invocations, and print the answer.
# URL=http://127.0.0.1:9000 asks another server, ACCEPT=text/csv for another form of answer.
set -eu
payload=${1:?"say which file to send, e.g. payloads/text-classification.json"}
case $payload in
    *.json) type=application/json ;;
    *.jsonl) type=application/jsonlines ;;
    *.csv) type=text/csv ;;
    *.txt) type=text/plain ;;
    *.png) type=image/png ;;
    *.wav) type=audio/wav ;;
    *) type=application/octet-stream ;;
esac
curl --silent --show-error --fail-with-body --noproxy '*' --data-binary "@$payload" \
    -H "Content-Type: ${2:-$type}" -H "Accept: ${ACCEPT:-application/json}" "${URL:-http://127.0.0.1:8080}/invocations"
echo
