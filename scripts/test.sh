#!/usr/bin/env bash
# Runs the tests of both modules. The last lines are those of `go test`.
set -uo pipefail
cd "$(dirname "$0")/.."

if [ -z "${SALLYPORT_TESTDATA:-}" ] && [ -d ../shared/testdata ]; then
  SALLYPORT_TESTDATA=$(cd ../shared/testdata && pwd)
  export SALLYPORT_TESTDATA
fi

# What shares memory between goroutines most is tested with the race detector.
concurrent='^github.com/sallyport-iam/sallyport/(journal|feed|authz/replica|internal/pgserver)(/|$)'
race=-race
if [ "$(go env CGO_ENABLED)" != 1 ] || ! command -v "$(go env CC)" >/dev/null; then
  race=
  echo "no C compiler: testing without the race detector"
fi

packages=$(go list ./...) || exit 1
raced=$(grep -E "$concurrent" <<<"$packages")
others=$(grep -vE "$concurrent" <<<"$packages")

status=0
go test $race -timeout 20m $raced || status=1
go test -timeout 20m $others || status=1
if [ -f authz/temporal/go.mod ]; then
  (cd authz/temporal && go test -timeout 20m ./...) || status=1
fi
exit $status
