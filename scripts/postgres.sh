#!/usr/bin/env bash
# Makes sure that PostgreSQL's programs are on the machine, where it may.
# Never fails: what needs them says so itself.
set -euo pipefail

found() {
  local dir
  for dir in $(dirname "$(command -v postgres || true)") /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
    /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin /home/linuxbrew/.linuxbrew/opt/postgresql*/bin \
    /Applications/Postgres.app/Contents/Versions/*/bin; do
    if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
      return 0
    fi
  done
  return 1
}

if found; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing PostgreSQL with apt-get"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -y -q --no-install-recommends postgresql; } </dev/null >/dev/null || true
elif command -v brew >/dev/null; then
  echo "installing PostgreSQL with brew"
  brew install --quiet postgresql@17 </dev/null || true
fi
if ! found; then
  echo "PostgreSQL's programs are missing: install PostgreSQL 15 or later (Debian, Ubuntu: sudo apt-get install postgresql)" >&2
fi
