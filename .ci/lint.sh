#!/usr/bin/env bash
# Vets, formats and checks that generated files are those that make generate writes.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
for module in . cmd/packer-plugin-isc; do
  (cd $module && go vet ./... && go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...) || status=1
done

# The modules that only make test-real runs: what they take of ours moves without them.
for module in signing/interop ovf/interop internal/sbom/schema internal/evidence/schema; do
  (cd $module && go vet -tags containers_image_openpgp,containers_image_storage_stub ./...) || status=1
done

unformatted=$(go run mvdan.cc/gofumpt@v0.12.0 -l .)
if [[ -n $unformatted ]]; then
  printf 'not formatted with gofumpt:\n%s\n' "$unformatted" >&2
  status=1
fi

# Pipelines to copy. shellcheck is used if it is there.
go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.7 example/ci/github-actions.yml || status=1
go run github.com/mikefarah/yq/v4@v4.47.1 --exit-status '.release.script | length > 0' example/ci/gitlab-ci.yml >/dev/null || status=1

# In a clean checkout this is git diff --exit-code; in one with changes it still tells.
state() { git -c safe.directory='*' diff && git -c safe.directory='*' status --porcelain; }
before=$(state)
make generate
if [[ $(state) != "$before" ]]; then
  echo "make generate changed files; commit what it writes:" >&2
  git -c safe.directory='*' diff --stat >&2
  status=1
fi
exit $status
