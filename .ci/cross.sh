#!/usr/bin/env bash
# Builds both programs for every target of .goreleaser.yml, and vets the tests on each system.
set -euo pipefail
cd "$(dirname "$0")/.."

targets=$(sed -n 's/^ *- \([a-z]*\)_\([a-z0-9]*\)$/\1 \2/p' .goreleaser.yml)
[[ -n $targets ]] || { echo "no targets in .goreleaser.yml" >&2; exit 1; }
vetted=
while read -r os arch; do
  out=dist/cross/iscadm-$os-$arch
  [[ $os == windows ]] && out+=.exe
  echo "$out"
  export CGO_ENABLED=0 GOOS=$os GOARCH=$arch
  go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$out" ./cmd/iscadm
  (cd cmd/packer-plugin-isc && go build -trimpath -buildvcs=false -ldflags "-s -w" -o "../../${out/iscadm/packer-plugin-isc}" .)
  if [[ $vetted != *" $os "* ]]; then
    go vet ./...
    (cd cmd/packer-plugin-isc && go vet ./...)
    vetted+=" $os "
  fi
done <<<"$targets"
