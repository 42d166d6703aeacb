#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME (default 30s).
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz DIR TARGET. Minimizing what is interesting takes minutes by default, in which nothing new is
# tried. The end of the time sometimes meets a worker that is still starting, and go test calls that a
# failure ("context deadline exceeded", without an input): such a run is made again.
fuzz() {
  for _ in 1 2 3; do
    if go test -run '^$' -fuzz "^$2\$" -fuzztime "${FUZZTIME:-30s}" -fuzzminimizetime 10x "$1" </dev/null 2>&1 | tee "$log"; then
      return 0
    fi
    if grep -q 'Failing input written' "$log" || ! grep -q '^ *context deadline exceeded$' "$log"; then
      return 1
    fi
  done
  return 1
}

n=0 failed=()
while read -r dir file; do
  while read -r target; do
    echo "== ${dir#"$PWD"/} $target"
    fuzz "$dir" "$target" || failed+=("${dir#"$PWD"/} $target")
    n=$((n + 1))
  done < <(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir/$file")
done < <(go list -f '{{$d := .Dir}}{{range .TestGoFiles}}{{$d}} {{.}}
{{end}}{{range .XTestGoFiles}}{{$d}} {{.}}
{{end}}' ./... | sed '/^$/d')
echo "$n fuzz targets, ${#failed[@]} failed"
printf '%s\n' "${failed[@]}"
((${#failed[@]} == 0))
