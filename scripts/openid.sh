#!/usr/bin/env bash
# Installs the OpenID providers for the tests of authn/oidc from npm into .cache/openid,
# at the versions and digests of the lock file.
# Never fails: the tests that need them say so themselves.
set -uo pipefail
cd "$(dirname "$0")/.."
source=authn/oidc/testdata/npm
target=.cache/openid
if cmp -s "$source/package-lock.json" "$target/package-lock.json" && [ -d "$target/node_modules" ]; then
  exit 0
fi
give_up() {
  echo "the OpenID providers cannot be had here ($1): the tests against them are skipped" >&2
  rm -rf "$target.new"
  exit 0
}
command -v node >/dev/null && command -v npm >/dev/null || give_up "no npm"
rm -rf "$target.new" && mkdir -p "$target.new"
cp "$source/package.json" "$source/package-lock.json" "$target.new/"
npm ci --prefix "$target.new" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null 2>&1 </dev/null || give_up "npm ci failed"
rm -rf "$target" && mv "$target.new" "$target"
