#!/bin/sh
#
# Start and stop method of svc:/site/isc-enc-swap: swap space that nobody can read after shutdown.
# The key comes from the kernel, goes to zfs(8) through a pipe and is never stored; what was left
# by a crash is unreadable and is destroyed at the next start.
#
# Properties (svccfg -s isc-enc-swap listprop config):
#   config/volume      the volume; empty: swap-isc in the pool of the root
#   config/size        bytes
#   config/encryption  value of the zfs property
#   config/fallback    lofi: a volume behind lofiadm(8), where ZFS cannot encrypt; none: fail

PATH=/usr/sbin:/usr/bin:/sbin
export PATH

# Exit statuses of smf_method(7).
SMF_EXIT_OK=0
SMF_EXIT_ERR_FATAL=95
SMF_EXIT_ERR_CONFIG=96

ZVOL=/dev/zvol/dsk

prop() {
	value=$(svcprop -p "config/$1" "$SMF_FMRI") || exit $SMF_EXIT_ERR_CONFIG
	if [ "$value" = '""' ]; then
		value=
	fi
	printf '%s' "$value"
}

# The device that the volume is swapped to by: itself, or the lofi device on it.
device() {
	lofi=$(lofiadm 2>/dev/null | awk -v file="$ZVOL/$volume" '$2 == file { print $1 }')
	printf '%s' "${lofi:-$ZVOL/$volume}"
}

destroy() {
	if zfs list -H -o name "$volume" >/dev/null 2>&1; then
		dev=$(device)
		if swap -l 2>/dev/null | awk -v dev="$dev" '$1 == dev { found = 1 } END { exit !found }'; then
			swap -d "$dev" || return 1
		fi
		if [ "$dev" != "$ZVOL/$volume" ]; then
			lofiadm -d "$dev" || return 1
		fi
		zfs unload-key "$volume" 2>/dev/null
		zfs destroy -r "$volume" || return 1
	fi
	return 0
}

# Without compression and snapshots, and with the page size, which the kernel swaps by.
create() {
	zfs create -V "$size" -b "$(pagesize)" -o primarycache=metadata -o sync=always -o com.sun:auto-snapshot=false "$@" "$volume"
}

start() {
	destroy || exit $SMF_EXIT_ERR_FATAL
	if dd if=/dev/urandom bs=32 count=1 2>/dev/null |
		create -o encryption="$encryption" -o keyformat=raw -o keylocation=prompt; then
		dev=$ZVOL/$volume
	elif [ "$fallback" = lofi ] && create; then
		dev=$(lofiadm -a "$ZVOL/$volume" -c aes-256-cbc -e) || {
			destroy
			echo "$volume: lofiadm cannot encrypt" >&2
			exit $SMF_EXIT_ERR_CONFIG
		}
	else
		echo "$volume: an encrypted volume cannot be made: there is no swap" >&2
		exit $SMF_EXIT_ERR_CONFIG
	fi
	if ! swap -a "$dev"; then
		destroy
		exit $SMF_EXIT_ERR_FATAL
	fi
	echo "swap on $dev, $encryption"
}

if [ -z "$SMF_FMRI" ]; then
	echo "usage: run by svc.startd with SMF_FMRI set" >&2
	exit $SMF_EXIT_ERR_CONFIG
fi
if [ "$(zonename)" != global ]; then
	echo "a zone has no swap of its own: its host swaps, and caps it with zone.max-swap"
	exit $SMF_EXIT_OK
fi
volume=$(prop volume) || exit $SMF_EXIT_ERR_CONFIG
size=$(prop size) || exit $SMF_EXIT_ERR_CONFIG
encryption=$(prop encryption) || exit $SMF_EXIT_ERR_CONFIG
fallback=$(prop fallback) || exit $SMF_EXIT_ERR_CONFIG
if [ -z "$volume" ]; then
	root=$(zfs list -H -o name / 2>/dev/null)
	if [ -z "$root" ]; then
		echo "the root is not on ZFS: set config/volume" >&2
		exit $SMF_EXIT_ERR_CONFIG
	fi
	volume=${root%%/*}/swap-isc
fi

case "$1" in
start) start ;;
stop) destroy || exit $SMF_EXIT_ERR_FATAL ;;
*)
	echo "usage: $0 start | stop" >&2
	exit $SMF_EXIT_ERR_CONFIG
	;;
esac
exit $SMF_EXIT_OK
