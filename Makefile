# Targets for people and CI. Nothing but Go and make is needed for build, demo, test and bench of
# the packages; test-real installs what it runs. Written for any make.

# The version stamped into the program: make build VERSION=1.2.3. Without one the program tells
# what the Go tools recorded.
VERSION =
GO = go
TESTFLAGS =
FUZZTIME = 30s
BENCHFLAGS =

all: build

build: iscadm plugin

iscadm:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o bin/iscadm ./cmd/iscadm

# The Packer plugin is a module of its own. With a version it is a release, which packer init takes.
PLUGIN = cmd/packer-plugin-isc
plugin:
	flags=; test -z "$(VERSION)" || flags="-X $(PLUGINVERSION).Version=$(VERSION) -X $(PLUGINVERSION).Prerelease="; \
		cd $(PLUGIN) && CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w $$flags" -o ../../bin/packer-plugin-isc .
PLUGINVERSION = github.com/goldenisc/packer-plugin-isc/cmd/packer-plugin-isc/version

demo: iscadm
	bin/iscadm demo

test:
	$(GO) test $(TESTFLAGS) ./...
	cd $(PLUGIN) && $(GO) test $(TESTFLAGS) ./...

# The programs of other people that read what we write: every test that is called TestReal….
# Debian, root. What takes longest begins first.
test-real: iscadm
	tools=`.ci/peers.sh` && PATH="$$tools:$$PATH" ISC_REAL=1 ISCADM="`pwd`/bin/iscadm" \
		$(GO) test -count=1 -timeout 40m -run '^TestReal' $(TESTFLAGS) ./zfs ./builder ./...
	tools=`.ci/peers.sh` && ISCADM="`pwd`/bin/iscadm" && export ISCADM && cd $(PLUGIN) && PATH="$$tools:$$PATH" ISC_REAL=1 \
		$(GO) test -count=1 -timeout 40m -run '^TestReal' $(TESTFLAGS) ./...
	tools=`.ci/peers.sh` && cd signing/interop && PATH="$$tools:$$PATH" ISC_REAL=1 \
		$(GO) test -count=1 -timeout 40m -tags containers_image_openpgp,containers_image_storage_stub $(TESTFLAGS) .
	cd internal/sbom/schema && $(GO) test -count=1 $(TESTFLAGS) .
	cd internal/evidence/schema && $(GO) test -count=1 $(TESTFLAGS) .
	cd ovf/interop && $(GO) test -count=1 $(TESTFLAGS) .

# What takes too long for every change.
test-nightly: iscadm
	ISC_NIGHTLY=1 $(GO) test -count=1 -timeout 4h $(TESTFLAGS) ./...
	tools=`ISC_NIGHTLY=1 .ci/peers.sh` && PATH="$$tools:$$PATH" ISC_REAL=1 ISC_NIGHTLY=1 ISC_ZFS_TIMEOUT=3600 ISCADM="`pwd`/bin/iscadm" \
		$(GO) test -count=1 -timeout 4h -run '^TestReal' $(TESTFLAGS) ./...
	tools=`ISC_NIGHTLY=1 .ci/peers.sh` && ISCADM="`pwd`/bin/iscadm" && export ISCADM && cd $(PLUGIN) && PATH="$$tools:$$PATH" \
		ISC_REAL=1 ISC_PACKER=packer-1.15 $(GO) test -count=1 -run '$(PACKER115)' $(TESTFLAGS) .
	FUZZTIME=10m .ci/fuzz.sh

# What does not take what Packer 1.16 brought.
PACKER115 = ^TestReal(Build|Errors|Provisioners|Cancel|Release|Parallel|Package|Zone)$$

# Ours beside the usual tools on the same data. Debian, root.
bench: iscadm
	$(GO) test -run '^$$' -bench . $(TESTFLAGS) ./...
	tools=`.ci/peers.sh` && PATH="$$tools:$$PATH" $(GO) run ./internal/bench -iscadm bin/iscadm $(BENCHFLAGS)

fuzz:
	FUZZTIME=$(FUZZTIME) .ci/fuzz.sh

lint:
	.ci/lint.sh

generate:
	$(GO) generate ./...
	rm -rf .web-docs
	cd $(PLUGIN) && $(GO) generate ./... && $(GO) tool packer-sdc renderdocs -src docs -partials docs-partials -dst ../../.web-docs

cross:
	.ci/cross.sh

clean:
	rm -rf bin dist

.PHONY: all build iscadm plugin demo test test-real test-nightly bench fuzz lint generate cross clean
