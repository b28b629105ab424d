#!/usr/bin/env bash
# Generates anew and fails if that changes any file. Files that others have
# changed and not committed do not disturb it.
set -euo pipefail
cd "$(dirname "$0")/.."

sums() {
  { find api -name '*.pb.go'; ls migrations/schema.sql authz/temporal_methods.go; } | sort | xargs sha256sum
}

before=$(sums)
make --no-print-directory generate
if ! diff <(echo "$before") <(sums); then
  echo "generated code was out of date: commit what make generate wrote" >&2
  exit 1
fi
echo "generated code is up to date"
