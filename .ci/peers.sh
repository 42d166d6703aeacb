#!/usr/bin/env bash
# Installs the programs that the real-peer tests and the benchmarks run, and prints the folder to
# put in front of PATH. Debian packages come from the machine's mirrors, which takes root; the rest
# is built from Go modules at the versions below and kept in the user's cache folder.
set -euo pipefail

packages=(
  attr busybox-static cryptsetup-bin dosfstools e2fsprogs erofs-utils gdisk grub-common grub-efi-amd64-bin libarchive-tools libvmdk-utils libxml2-utils mmdebstrap
  mtree-netbsd qemu-user-static openssh-client openssh-server openssl ovmf pigz qemu-system-x86 qemu-utils sbsigntool shellcheck skopeo systemd tar uidmap umoci virt-v2v zstd
)
modules=(
  github.com/google/go-containerregistry/cmd/crane@v0.22.1
  github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
  github.com/vbatts/go-mtree/cmd/gomtree@v0.7.0
  oras.land/oras/cmd/oras@v1.3.6
)

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
done
if ((${#missing[@]})); then
  if ((EUID != 0)); then
    echo "not installed, and installing them takes root: ${missing[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
fi

cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/iscadm-ci
# Two that build the same at once would fail.
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
for m in "${modules[@]}"; do
  dir=$cache/${m##*/}
  name=${m##*/}
  name=${name%@*}
  if [[ ! -x $dir/$name ]]; then
    echo "building $m" >&2
    mkdir -p "$dir"
    # Outside the module, whose settings are not theirs.
    (cd "$cache" && GOFLAGS='' CGO_ENABLED=0 GOBIN=$dir go install "$m") >&2
  fi
  path=${path:+$path:}$dir
done
# The older cosign, which many have, takes a quarter of an hour to build. It goes by another name.
cosign2=2.6.5
if [[ -n ${ISC_NIGHTLY-} ]]; then
  dir=$cache/cosign-v2@v$cosign2
  if [[ ! -x $dir/cosign-v2 ]]; then
    echo "building cosign $cosign2" >&2
    mkdir -p "$dir"
    (cd "$cache" && GOFLAGS='' CGO_ENABLED=0 GOBIN=$dir/new go install -trimpath -ldflags '-s -w' "github.com/sigstore/cosign/v2/cmd/cosign@v$cosign2") >&2
    mv "$dir/new/cosign" "$dir/cosign-v2"
    rmdir "$dir/new"
  fi
  path=$path:$dir
fi
# A registry that does not know the referrers API and keeps lists of referrers under tags alone.
distribution=3.1.2
if [[ -n ${ISC_NIGHTLY-} ]]; then
  dir=$cache/distribution@v$distribution
  if [[ ! -x $dir/registry ]]; then
    echo "building distribution $distribution" >&2
    mkdir -p "$dir"
    (cd "$cache" && GOFLAGS='' CGO_ENABLED=0 GOBIN=$dir go install -trimpath -ldflags '-s -w' "github.com/distribution/distribution/v3/cmd/registry@v$distribution") >&2
  fi
  path=$path:$dir
fi
# Packer replaces modules, so that go install refuses it: it is built as the main module. The older one,
# like cosign's, is for the night and goes by another name.
packer() {
  local version=$1 name=$2 dir=$cache/packer@v$1
  path=$path:$dir
  [[ ! -x $dir/$name ]] || return 0
  echo "building packer $version" >&2
  work=$(mktemp -d)
  trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
  (
    cd "$work"
    source=$(GOFLAGS='' go mod download -json "github.com/hashicorp/packer@v$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    cp -r "$source" source
    chmod -R u+w source
    cd source
    mkdir -p "$dir"
    GOFLAGS=-buildvcs=false CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$dir/packer.new" .
    mv "$dir/packer.new" "$dir/$name"
  ) >&2
  chmod -R u+w "$work"
  rm -rf "$work"
  trap - EXIT
}
if [[ -n ${ISC_NIGHTLY-} ]]; then
  packer 1.15.0 packer-1.15
fi
packer 1.16.0 packer
echo "$path"
