#!/bin/sh
#
# Start and stop method of svc:/site/isc-enc-scratch: scratch space that nobody can read after
# shutdown. The key comes from the kernel, goes to zfs(8) through a pipe (on Solaris, whose zfs reads
# none, through a file in memory) and is never stored; what was left by a crash is unreadable and is
# destroyed at the next start.
#
# Properties (svccfg -s isc-enc-scratch listprop config):
#   config/parent      dataset that the scratch dataset is made in; empty: the first delegated one
#   config/mountpoint  where it is mounted
#   config/quota       bytes
#   config/encryption  value of the zfs property
#   config/fallback    tmpfs: memory and swap, if there is no dataset; none: fail

PATH=/usr/sbin:/usr/bin:/sbin
export PATH

# Exit statuses of smf_method(7).
SMF_EXIT_OK=0
SMF_EXIT_ERR_FATAL=95
SMF_EXIT_ERR_CONFIG=96

VOLATILE=/system/volatile # of Solaris: in memory

prop() {
	value=$(svcprop -p "config/$1" "$SMF_FMRI") || exit $SMF_EXIT_ERR_CONFIG
	# svcprop prints an empty string as "" and escapes what a shell would see.
	if [ "$value" = '""' ]; then
		value=
	fi
	printf '%s' "$value"
}

# The first dataset that the global zone delegated: zoned, and not the boot environment.
delegated() {
	zfs list -H -t filesystem -o name,zoned,mountpoint 2>/dev/null |
		while read -r name zoned where; do
			case "$name" in
			*/ROOT | */ROOT/*) continue ;;
			esac
			if [ "$zoned" = on ] && [ "$where" != / ]; then
				printf '%s' "$name"
				break
			fi
		done
}

destroy() {
	if zfs list -H -o name "$1" >/dev/null 2>&1; then
		zfs unmount -f "$1" 2>/dev/null
		zfs unload-key "$1" 2>/dev/null
		zfs destroy -r "$1" || return 1
	fi
	return 0
}

create() {
	zfs create -o encryption="$encryption" "$@" -o canmount=noauto -o mountpoint="$mountpoint" -o devices=off -o setuid=off \
		-o exec=off -o sync=disabled -o quota="$quota" "$parent/scratch"
}

# A raw key is exactly 32 bytes.
key() {
	dd if=/dev/urandom bs=32 count=1 2>/dev/null
}

encrypted() {
	case "$(uname -v)" in
	11.*) # Solaris
		file=$(mktemp "$VOLATILE/isc-scratch.XXXXXX") || return 1
		key >"$file" && create -o keysource="raw,file://$file"
		made=$?
		rm -f "$file"
		return $made
		;;
	*) key | create -o keyformat=raw -o keylocation=prompt ;;
	esac
}

# A start without a stop in between, or one that was broken off, has mounted memory already.
mounted() {
	while read -r _ at type _; do
		if [ "$at" = "$mountpoint" ] && [ "$type" = tmpfs ]; then
			return 0
		fi
	done </etc/mnttab
	return 1
}

start() {
	if [ -n "$parent" ]; then
		destroy "$parent/scratch" || exit $SMF_EXIT_ERR_FATAL
		if encrypted; then
			zfs mount "$parent/scratch" || exit $SMF_EXIT_ERR_FATAL
			chmod 1777 "$mountpoint" || exit $SMF_EXIT_ERR_FATAL
			echo "$mountpoint: $parent/scratch, $encryption"
			return
		fi
		echo "$parent/scratch: an encrypted dataset cannot be made" >&2
	else
		echo "no dataset is delegated to this zone" >&2
	fi
	if [ "$fallback" != tmpfs ]; then
		exit $SMF_EXIT_ERR_CONFIG
	fi
	echo "$mountpoint: tmpfs; what is swapped out is as safe as the host's swap" >&2
	if mounted; then
		umount -f "$mountpoint" || exit $SMF_EXIT_ERR_FATAL
	fi
	mount -F tmpfs -o "size=$quota,nosuid,nodevices,noexec" swap "$mountpoint" || exit $SMF_EXIT_ERR_FATAL
	chmod 1777 "$mountpoint" || exit $SMF_EXIT_ERR_FATAL
}

stop() {
	if [ -n "$parent" ] && zfs list -H -o name "$parent/scratch" >/dev/null 2>&1; then
		destroy "$parent/scratch" || exit $SMF_EXIT_ERR_FATAL
	else
		umount -f "$mountpoint" 2>/dev/null
	fi
}

if [ -z "$SMF_FMRI" ]; then
	echo "usage: run by svc.startd with SMF_FMRI set" >&2
	exit $SMF_EXIT_ERR_CONFIG
fi
parent=$(prop parent) || exit $SMF_EXIT_ERR_CONFIG
mountpoint=$(prop mountpoint) || exit $SMF_EXIT_ERR_CONFIG
quota=$(prop quota) || exit $SMF_EXIT_ERR_CONFIG
encryption=$(prop encryption) || exit $SMF_EXIT_ERR_CONFIG
fallback=$(prop fallback) || exit $SMF_EXIT_ERR_CONFIG
if [ -z "$parent" ]; then
	parent=$(delegated)
fi

case "$1" in
start) start ;;
stop) stop ;;
*)
	echo "usage: $0 start | stop" >&2
	exit $SMF_EXIT_ERR_CONFIG
	;;
esac
exit $SMF_EXIT_OK
