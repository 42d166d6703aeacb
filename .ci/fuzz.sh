#!/usr/bin/env bash
# Runs every fuzz target of the module for FUZZTIME (default 30s).
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cache=$(go env GOCACHE)/fuzz

# fuzz PACKAGE TARGET runs the program of a package, which go test would link again for every target.
# Minimizing what is interesting takes minutes by default, in which nothing new is tried. The end of the
# time sometimes meets a worker that is still starting, and that is called a failure ("context deadline
# exceeded", without an input): such a run is made again, and its output is not shown.
fuzz() {
  for _ in 1 2 3; do
    if "$work/test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "${FUZZTIME:-30s}" -test.fuzzminimizetime 10x \
      -test.fuzzcachedir "$cache/$1" </dev/null >"$work/log" 2>&1; then
      cat "$work/log"
      return 0
    fi
    if grep -q 'Failing input written' "$work/log" || ! grep -q '^ *context deadline exceeded$' "$work/log"; then
      break
    fi
    echo 'its time ended while a worker was starting'
  done
  cat "$work/log"
  return 1
}

n=0 failed=()
while read -r package dir list; do
  read -ra files <<<"$list"
  mapfile -t targets < <(cd "$dir" && sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "${files[@]}")
  ((${#targets[@]})) || continue
  go test -c -fuzz . -o "$work/test" "$package"
  cd "$dir"
  for target in "${targets[@]}"; do
    echo "== $package $target"
    fuzz "$package" "$target" || failed+=("$package $target")
    n=$((n + 1))
  done
  cd "$OLDPWD"
done < <(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}} {{join .TestGoFiles " "}} {{join .XTestGoFiles " "}}{{end}}' ./...)
echo "$n fuzz targets, ${#failed[@]} failed"
printf '%s\n' "${failed[@]}"
((${#failed[@]} == 0))
