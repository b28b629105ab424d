#!/usr/bin/env bash
# Installs the OpenID providers for the tests of authn/oidc: those of npm into
# .cache/openid at the versions and digests of the lock file, and zitadel's example,
# built from its own module, into .cache/zitadel.
# Never fails: the tests that need them say so themselves.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD

skipped() { echo "$1 cannot be had here ($2): the tests against it are skipped" >&2; }

npm_providers() {
  local source=authn/oidc/testdata/npm target=.cache/openid
  if cmp -s "$source/package-lock.json" "$target/package-lock.json" && [ -d "$target/node_modules" ]; then
    return
  fi
  if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    skipped "oidc-provider" "no npm"
    return
  fi
  rm -rf "$target.new" && mkdir -p "$target.new"
  cp "$source/package.json" "$source/package-lock.json" "$target.new/"
  if npm ci --prefix "$target.new" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null 2>&1 </dev/null; then
    rm -rf "$target" && mv "$target.new" "$target"
  else
    skipped "oidc-provider" "npm ci failed"
    rm -rf "$target.new"
  fi
}

zitadel() {
  mkdir -p .cache/zitadel
  (cd authn/oidc/testdata/zitadel && go build -o "$root/.cache/zitadel/op" .) >/dev/null 2>&1 || skipped "zitadel's example provider" "go build failed"
}

npm_providers
zitadel
