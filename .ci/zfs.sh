#!/usr/bin/env bash
# Runs the ZFS implementations that our streams are tested with. Debian 12, root.
#
#   zfs.sh fuse SCRIPT [ARG]…     SCRIPT (bash) with a zfs-fuse daemon of its own: zpool and zfs of pool
#                                 version 23 are first in PATH
#   zfs.sh check STREAM           does zstream of OpenZFS find STREAM whole and its checksums right?
#   zfs.sh zdb [ARG]…             zdb of OpenZFS
#   zfs.sh vm [-o DIR] [-d DISK]… SCRIPT [FILE]…
#                                 SCRIPT (busybox sh) in a guest with OpenZFS; FILEs are in /in, and what
#                                 it leaves in /out comes back into DIR; a DISK, whose image it changes, is
#                                 /disk/NAME, a link to its device
#   zfs.sh prepare                installs and builds everything
#
# Each ends with the status of what it ran, or 125 if it could not be run. What they need is
# installed from Debian and kept in ISC_ZFS_CACHE, by default in the user's cache folder. The first
# guest takes some ten minutes, as a kernel module is built for it.
set -euo pipefail

suite=trixie # whose OpenZFS, 2.3, is unpacked, not installed
cache=${ISC_ZFS_CACHE:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/iscadm-ci/zfs}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
export DEBIAN_FRONTEND=noninteractive
trap 'exit 125' ERR

say() { printf 'zfs.sh: %s\n' "$*" >&2; }

# need FILE PACKAGE… installs a package unless its file is there.
need() {
  local missing=()
  while (($#)); do
    [[ -e $1 ]] || missing+=("$2")
    shift 2
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  apt-get update -q >>"$cache/log" 2>&1 || true
  apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends "${missing[@]}" >>"$cache/log" 2>&1
}

# once FUNCTION makes what all share, such as userland and guest: tests of several packages ask for it at
# the same time.
once() {
  exec 9>"$cache/lock"
  flock 9
  "$1"
  exec 9>&-
}

fuse() {
  need /sbin/zfs-fuse zfs-fuse
  # The daemon opens every pool in its cache file, wherever it is in use: it sees only its own.
  exec unshare --mount --propagation private bash -c '
    set -euo pipefail
    for d in /run/zfs /run/lock/zfs /var/lib/zfs; do mkdir -p $d; mount -t tmpfs tmpfs $d; done
    log=$(mktemp)
    /sbin/zfs-fuse --no-daemon --no-kstat-mount --enable-xattr >"$log" 2>&1 &
    daemon=$!
    trap "kill $daemon 2>/dev/null; wait $daemon 2>/dev/null || true; rm -f $log" EXIT
    for _ in $(seq 100); do [[ -S /run/zfs/zfs_socket ]] && break; sleep 0.1; done
    [[ -S /run/zfs/zfs_socket ]] || { echo "zfs.sh: zfs-fuse did not start:" >&2; cat "$log" >&2; exit 125; }
    rc=0
    PATH=/sbin:$PATH bash "$@" || rc=$?
    exit $rc' zfs-fuse "$@"
}

# theirs ARG… is apt-get with the package lists of the other suite, apart from the system's own.
theirs() {
  apt-get -o Dir::Etc::sourcelist="$cache/apt/debian.sources" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferencesparts=/dev/null -o Dir::State::lists="$cache/apt/lists" -o Dir::State::status=/dev/null \
    -o Dir::Cache="$cache/apt" -o APT::Sandbox::User=root -o APT::Default-Release=$suite \
    -o APT::Install-Recommends=false -o Acquire::Languages=none "$@"
}

user=$cache/user-$suite
lib=$user/usr/lib/x86_64-linux-gnu

# userland unpacks OpenZFS's programs with their libraries, down to libc.
userland() {
  [[ ! -e $user/.done ]] || return 0
  say "unpacking OpenZFS of $suite"
  local uri
  uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Identifier: Packages' | awk '$2 == "bookworm" {print $1; exit}')
  mkdir -p "$cache"/apt/{lists,archives}/partial "$cache/debs/$suite"
  cat >"$cache/apt/debian.sources" <<END
Types: deb
URIs: $uri
Suites: $suite
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
  theirs -q update >>"$cache/log" 2>&1
  rm -rf "$user"
  mkdir -p "$user/usr"
  for d in bin sbin lib lib64; do
    mkdir "$user/usr/$d"
    ln -s "usr/$d" "$user/$d"
  done
  theirs -o Dir::Cache::archives="$cache/debs/$suite" -q -y --download-only install zfsutils-linux attr acl >>"$cache/log" 2>&1
  (cd "$cache/debs/$suite" && theirs -q download zfs-dkms >>"$cache/log" 2>&1)
  for deb in "$cache/debs/$suite"/*.deb; do
    case ${deb##*/} in
      lib[a-z]* | zlib1g* | zfs* | attr_* | acl_*) dpkg-deb --fsys-tarfile "$deb" | tar -xf - -C "$user" --keep-directory-symlink ;;
    esac
  done
  touch "$user/.done"
}

# tool NAME ARG… runs one of those programs.
tool() {
  once userland
  local name=$1
  shift
  "$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$user/usr/sbin/$name" "$@"
}

# check tells what zstream's exit status, which is always 0, does not.
check() {
  local dump begins ends bad
  dump=$(tool zstream dump -v "$1" 2>&1)
  count() { sed -n "s/.*$1 *= *\([0-9]*\).*/\1/p" <<<"$dump" | tail -n 1; }
  begins=$(count 'Total DRR_BEGIN records') ends=$(count 'Total DRR_END records')
  sed -n '/^SUMMARY/,$p' <<<"$dump"
  trap - ERR
  if bad=$(grep -i -m1 'expected checksum differs\|invalid\|incorrect' <<<"$dump"); then
    say "$bad"
    exit 1
  fi
  if [[ -z $begins || $begins = 0 || $ends -lt $begins || $(count 'Total stream length') != "$(stat -c %s "$1")" ]]; then
    say "not a whole stream"
    exit 1
  fi
}

headers() { apt-cache depends linux-headers-cloud-amd64 | awk '$1 == "Depends:" {print $2; exit}'; }

# guest makes the kernel and the initial file system that vm boots, which is made anew when init is
# another one.
guest() {
  initramfs=$cache/initramfs-$(init | sha256sum | cut -c 1-12)
  [[ ! -e $initramfs ]] || return 0
  need /usr/bin/qemu-system-x86_64 qemu-system-x86 /usr/bin/gcc-12 gcc-12 /usr/bin/make make /usr/bin/cpio cpio \
    /usr/sbin/depmod kmod /usr/bin/file file /usr/include/stdio.h libc6-dev
  userland
  local headers release kernel more
  headers=$(headers) release=${headers#linux-headers-} kernel=$cache/kernel-$release
  if [[ ! -e $kernel/.done ]]; then
    say "unpacking kernel $release"
    rm -rf "$kernel"
    mkdir -p "$kernel" "$cache/debs/kernel"
    more=$(apt-cache depends "$headers" | awk '$1 == "Depends:" {print $2}' | grep '^linux-\(headers\|kbuild\|compiler\)')
    # shellcheck disable=SC2086 # several packages
    (cd "$cache/debs/kernel" && apt-get -o APT::Sandbox::User=root -q download "$headers" $more "linux-image-$release" busybox-static >>"$cache/log" 2>&1)
    for deb in "$cache/debs/kernel"/*.deb; do dpkg-deb -x "$deb" "$kernel"; done
    sed -i "s#/usr/src/#$kernel/usr/src/#" "$kernel/usr/src/$headers/Makefile"
    touch "$kernel/.done"
  fi
  local source version modules
  source=$(echo "$user"/usr/src/zfs-*)
  version=${source##*/zfs-} modules=$cache/modules-${source##*/zfs-}-$release
  if [[ ! -e $modules/zfs.ko ]]; then
    say "building zfs.ko $version"
    rm -rf "$cache/build" "$modules.part"
    cp -a "$source" "$cache/build"
    (
      cd "$cache/build"
      chmod +x configure
      ./configure --with-config=kernel --disable-dependency-tracking --with-linux="$kernel/usr/src/${headers%-cloud-amd64}-common" \
        --with-linux-obj="$kernel/usr/src/$headers" >configure.log 2>&1
      make -s -j"$(nproc)" >make.log 2>&1
      mkdir "$modules.part"
      find module -name '*.ko' -exec cp {} "$modules.part" \;
      strip -g "$modules.part"/*.ko
    )
    mv "$modules.part" "$modules"
    rm -rf "$cache/build"
  fi
  local root=$cache/root ld=$lib/ld-linux-x86-64.so.2 busybox=$kernel/bin/busybox from to
  rm -rf "$root"
  mkdir -p "$root"/{bin,sbin,etc/zfs,lib/x86_64-linux-gnu,lib64,proc,sys,dev,run,tmp,in,out,disk,mnt}
  ln -s ../proc/self/mounts "$root/etc/mtab"
  init >"$root/init"
  chmod +x "$root/init"
  [[ -e $busybox ]] || busybox=$kernel/usr/bin/busybox
  install "$busybox" "$root/bin/busybox"
  cp -L "$ld" "$root/lib64/"
  for bin in "$user"/usr/sbin/{zfs,zpool,zdb,zstream,mount.zfs} "$user"/usr/bin/{getfattr,setfattr}; do
    cp -L "$bin" "$root/sbin/"
    "$ld" --library-path "$lib" --list "$bin" | awk '$2 == "=>" {print $3}'
  done | sort -u | xargs cp -L -t "$root/lib/x86_64-linux-gnu"
  cp -L "$lib/libgcc_s.so.1" "$root/lib/x86_64-linux-gnu"
  mkdir -p "$root/usr/share/zfs"
  cp -r "$user/usr/share/zfs/compatibility.d" "$root/usr/share/zfs/"
  from=$kernel/lib/modules/$release to=$root/lib/modules/$release
  mkdir -p "$to"
  cp "$from"/modules.{builtin,builtin.modinfo,order} "$from"/kernel/drivers/virtio/virtio{,_ring,_pci_modern_dev,_pci_legacy_dev,_pci}.ko \
    "$from/kernel/drivers/block/virtio_blk.ko" "$modules"/*.ko "$to/"
  depmod -b "$root" "$release"
  (cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$initramfs.part"
  cp "$kernel/boot/vmlinuz-$release" "$cache/vmlinuz"
  mv "$initramfs.part" "$initramfs"
  rm -rf "$root"
}

# init prints what the guest starts: kernel log, output and status have a serial port each.
init() {
  cat <<'END'
#!/bin/busybox sh
export PATH=/sbin:/bin HOME=/ TERM=dumb
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs -o size=90% tmp /tmp
stty -F /dev/ttyS1 raw -echo; stty -F /dev/ttyS2 raw -echo
exec </dev/null >/dev/ttyS1 2>&1
modprobe virtio_pci; modprobe virtio_blk
modprobe spl spl_panic_halt=1 # a failed assertion ends the guest
modprobe zfs
for b in /sys/block/vd*; do
  case $(cat $b/serial) in
    in) tar -xf /dev/${b##*/} -C /in ;;
    out) out=/dev/${b##*/} ;;
    d*) ln -s /dev/${b##*/} /disk/$(cat $b/serial) ;;
  esac
done
while read -r serial name; do mv /disk/$serial "/disk/$name"; done </in/.disks
cd /tmp
sh /in/.script
rc=$?
[ -z "$out" ] || tar -cf $out -C /out . || rc=125
sync; echo $rc >/dev/ttyS2
reboot -f
END
}

vm() {
  local out='' script rc t drives members disks=() i
  while [[ $1 = -[od] ]]; do
    case $1 in
      -o) out=$2 ;;
      -d) disks+=("$2") ;;
    esac
    shift 2
  done
  script=$1
  shift
  once guest
  t=$(mktemp -d)
  # shellcheck disable=SC2064 # t is local
  trap "rm -rf '$t'" EXIT
  cp "$script" "$t/.script"
  : >"$t/.disks"
  for i in "${!disks[@]}"; do echo "d$i ${disks[i]##*/}" >>"$t/.disks"; done
  members=(-C "$t" .script .disks)
  for f; do
    f=$(realpath "$f")
    members+=(-C "${f%/*}/" "${f##*/}")
  done
  tar -cf "$t/in" "${members[@]}"
  drives=(-drive "file=$t/in,format=raw,if=none,id=in,readonly=on" -device virtio-blk-pci,drive=in,serial=in)
  if [[ -n $out ]]; then
    truncate -s 1G "$t/out"
    drives+=(-drive "file=$t/out,format=raw,if=none,id=out" -device virtio-blk-pci,drive=out,serial=out)
  fi
  for i in "${!disks[@]}"; do
    drives+=(-drive "file=${disks[i]},format=raw,if=none,id=d$i" -device "virtio-blk-pci,drive=d$i,serial=d$i")
  done
  timeout -k 5 "${ISC_ZFS_TIMEOUT:-900}" qemu-system-x86_64 -machine q35 -accel tcg -cpu max -m "${ISC_ZFS_MEMORY:-2048}" \
    -nodefaults -no-user-config -display none -no-reboot -kernel "$cache/vmlinuz" -initrd "$initramfs" \
    -append 'console=ttyS0 panic=-1 oops=panic mitigations=off random.trust_cpu=on' "${drives[@]}" \
    -serial "file:$t/log" -chardev stdio,id=out,signal=off -serial chardev:out -serial "file:$t/rc" </dev/null 2>"$t/err" || true
  rc=$(tr -cd 0-9 <"$t/rc")
  if [[ -z $rc ]]; then
    say "the guest did not report a status; its log ends:"
    tail -n 40 "$t/err" "$t/log" >&2
    exit 125
  fi
  if [[ -n $out ]]; then
    mkdir -p "$out"
    tar -xf "$t/out" -C "$out"
  fi
  exit "$rc"
}

verb=${1:-}
(($#)) && shift
case $verb in
  fuse | check | vm) "$verb" "$@" ;;
  zdb) tool zdb "$@" ;;
  prepare)
    need /sbin/zfs-fuse zfs-fuse
    once guest
    ;;
  *)
    sed -n '2,18s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
