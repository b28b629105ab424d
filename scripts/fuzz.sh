#!/usr/bin/env bash
# Fuzzes every target of both modules, one after the other.
set -uo pipefail
cd "$(dirname "$0")/.."
status=0
while IFS=: read -r file function; do
  target=$(sed -E 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/' <<<"$function")
  directory=$(dirname "$file")
  echo "$directory $target"
  (cd "$directory" && go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-10s}" .) || status=1
done < <(grep -rE '^func Fuzz' --include='*_test.go' . | sort)
exit $status
