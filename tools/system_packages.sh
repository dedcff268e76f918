#!/usr/bin/env bash
# The programs that some tests use. Installed where that is possible (root on a Debian-like machine), else named:
# the tests that need a missing one are skipped and say so.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1; }
have_postgres() { have postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }

missing=()
have redis-server || missing+=(redis-server)
have_postgres || missing+=(postgresql)
have chromium || have chromium-browser || have google-chrome || missing+=(chromium)
have g++ || missing+=(g++)
have curl || missing+=(curl)
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && have apt-get; then
    export DEBIAN_FRONTEND=noninteractive
    if apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
        exit 0
    fi
    echo "could not install: ${missing[*]}; the tests that need them are skipped" >&2
    exit 0
fi
echo "not installed: ${missing[*]}; the tests that need them are skipped (install them as root to run all tests)" >&2
