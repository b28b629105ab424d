#!/usr/bin/env bash
# Installs the pinned npm packages that check what we issue, where npm is there.
# Without them the tests that need them are skipped, and say so.
set -uo pipefail
cd "$(dirname "$0")/../test/verifiers"

if ! command -v npm >/dev/null; then
  echo "no npm: what we issue is not checked by other libraries"
  exit 0
fi
if [ node_modules/.package-lock.json -nt package-lock.json ]; then
  exit 0
fi
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error || echo "npm failed: what we issue is not checked by other libraries"
