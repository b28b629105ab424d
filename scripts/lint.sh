#!/usr/bin/env bash
# Lints both modules and looks their dependencies up in the vulnerability
# database of $SALLYPORT_TESTDATA.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
status=0

tool() { go tool -modfile="$root/tools/go.mod" "$@"; }

modules=". authz/temporal"
for module in $modules; do
  echo "golangci-lint $module"
  (cd "$module" && tool golangci-lint run --config "$root/.golangci.yml" ./...) || status=1
done

echo "buf lint"
tool buf lint || status=1

database=${SALLYPORT_TESTDATA:-../shared/testdata}/vulndb.tar.gz
if [ -f "$database" ]; then
  mkdir -p .cache
  if [ ! -d .cache/vulndb ] || [ "$database" -nt .cache/vulndb ]; then
    rm -rf .cache/vulndb .cache/vulndb.new
    mkdir .cache/vulndb.new
    tar -xzf "$database" -C .cache/vulndb.new --strip-components=1 && touch .cache/vulndb.new && mv .cache/vulndb.new .cache/vulndb
  fi
  for module in $modules; do
    echo "govulncheck $module"
    (cd "$module" && tool govulncheck -db "file://$root/.cache/vulndb" ./...) || status=1
  done
else
  echo "govulncheck skipped: no vulnerability database at $database"
fi
exit $status
