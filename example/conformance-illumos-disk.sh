#!/bin/sh
# Proves what could not be proven where iscadm is developed, for lack of an illumos root: that the disk of an illumos image starts. It
# prints PASS or FAIL for every step. DISK is the raw disk, as iscadm export IMAGE raw_disk gives it when the block has
# compression = "none"; it is not changed.
#
#   conformance-illumos-disk.sh DISK [bios]
#
# On an illumos host, as root, it looks at a copy of the disk: partitions, boot blocks, pool, boot environment, boot archive, scrub. On
# any other it boots a copy in QEMU, by EFI (OVMF=FILE names the firmware) or with the argument bios without, and waits for the console: the image needs
# console="ttya,text" in /boot/loader.conf.local. TIMEOUT is how long, in seconds; ACCEL=kvm makes it fast where that is to be had.
set -u

disk=${1:?usage: $0 DISK [bios]}
firmware=${2:-efi}
work=$(mktemp -d) || exit 1
failed=0
device=''
qemu=''

step() {
	name=$1
	shift
	if "$@" >"$work/out" 2>&1; then
		echo "PASS $name"
	else
		echo "FAIL $name (status $?)"
		tail -20 "$work/out" | sed 's/^/     /'
		failed=$((failed + 1))
	fi
}

clean() {
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null
	if [ -n "$device" ]; then
		zpool export iscconf 2>/dev/null
		lofiadm -d "$work/disk"
	fi
	rm -rf "$work"
}
trap clean EXIT
trap 'exit 1' HUP INT TERM

cp "$disk" "$work/disk" || exit 1

# shows TEXT COMMAND... tells whether a command prints the text.
shows() {
	text=$1
	shift
	"$@" >"$work/shown" 2>&1
	cat "$work/shown"
	grep -F "$text" "$work/shown" >/dev/null
}

seen() {
	n=0
	while [ $n -lt "${TIMEOUT:-900}" ]; do
		if grep -a -E "$1" "$work/console" >/dev/null; then return 0; fi
		kill -0 "$qemu" || break
		sleep 1
		n=$((n + 1))
	done
	tail -c 2000 "$work/console"
	return 1
}

if [ "$(uname -s)" = SunOS ]; then
	device=$(lofiadm -l -a "$work/disk") || exit 1 # /dev/dsk/cXtYdZp0
	base=${device%p0}
	step "partitions are read" prtvtoc "${base}s0"
	step "the EFI system partition is clean" fsck -F pcfs -n "/dev/rdsk/${base##*/}s0"
	step "the boot block is where installboot looks" installboot -i "/dev/rdsk/${base##*/}s1"
	step "the pool is imported" zpool import -f -N -R "$work/root" -d /dev/dsk rpool iscconf
	boot=$(zpool get -Ho value bootfs iscconf)
	step "there is a dataset to boot from" zfs list "$boot"
	step "libbe knows it" shows static zfs get -Ho value org.opensolaris.libbe:policy "$boot"
	step "it is mounted" zfs mount "$boot"
	step "the boot archive is up to date" bootadm update-archive -n -R "$work/root"
	step "a scrub finds nothing" sh -c 'zpool scrub iscconf && while zpool status iscconf | grep "scrub in progress"; do sleep 1; done; zpool status -x iscconf | grep healthy'
else
	set -- -machine q35 -m 2048 -display none -serial "file:$work/console" -no-reboot \
		-drive "file=$work/disk,format=raw,if=none,id=disk" -device ide-hd,drive=disk,bus=ide.0 -nic user,model=e1000
	[ "$firmware" = bios ] || set -- "$@" -bios "${OVMF:-/usr/share/ovmf/OVMF.fd}"
	set -- "$@" -accel "${ACCEL:-tcg}" -cpu max
	: >"$work/console"
	qemu-system-x86_64 "$@" &
	qemu=$!
	step "the loader starts ($firmware)" seen 'Loading |illumos|boot_archive'
	step "the kernel starts" seen 'SunOS Release|OmniOS|OpenIndiana'
	step "the root is mounted and services start" seen 'Hostname:|console login:'
	step "the console asks for a login" seen 'console login:'
fi

[ $failed = 0 ] || echo "$failed steps failed"
[ $failed = 0 ]
