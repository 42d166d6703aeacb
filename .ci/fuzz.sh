#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME (default 30s).
set -euo pipefail
cd "$(dirname "$0")/.."

n=0
while read -r dir file; do
  while read -r target; do
    echo "== ${dir#"$PWD"/} $target"
    # Minimizing what is interesting takes minutes by default, in which nothing new is tried.
    go test -run '^$' -fuzz "^$target\$" -fuzztime "${FUZZTIME:-30s}" -fuzzminimizetime 10x "$dir" </dev/null
    n=$((n + 1))
  done < <(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir/$file")
done < <(go list -f '{{$d := .Dir}}{{range .TestGoFiles}}{{$d}} {{.}}
{{end}}{{range .XTestGoFiles}}{{$d}} {{.}}
{{end}}' ./... | sed '/^$/d')
echo "$n fuzz targets"
