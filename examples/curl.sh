#!/bin/sh
# A job with curl. Run it twice with one RUN_ID: the second run finds the job of the first.
set -eu
: "${BITWRIGHT_SERVER:=http://127.0.0.1:8321}" "${RUN_ID:=$(date +%s)}"
set -- -sS --fail-with-body --retry 5 --retry-connrefused
[ -z "${BITWRIGHT_API_KEY:-}" ] || set -- "$@" -H "Authorization: Bearer $BITWRIGHT_API_KEY"

# Prefer: wait holds the answer until the job has ended, at most a minute; the job goes on by itself.
job=$(curl "$@" "$BITWRIGHT_SERVER/v1/jobs" -H 'Content-Type: application/json' -H "Idempotency-Key: \"$RUN_ID\"" \
    -H 'Prefer: wait=60' -d "{\"kind\": \"plan\", \"model\": \"$MODEL\", \"budget\": \"$BUDGET\", \"metric\": \"weight-mse\", \"confirm\": false}")
id=$(printf %s "$job" | sed 's/.*"id":"\([^"]*\)".*/\1/')

# The result is 404 with Retry-After until the job has ended: --retry-all-errors waits for it.
curl "$@" --retry 100 --retry-all-errors "$BITWRIGHT_SERVER/v1/jobs/$id/result"
