#!/bin/sh
#
# Gives an instance its own identity at its first start: its name, the keys that may log in, and
# host keys for ssh. An image is sealed: it has none of these. An instance whose root is read-only, as
# that of a verified guest is, gets it at every start, and keeps it in memory.
#
# The first of these that is there is read:
#   /etc/isc/identity   a file that the host puts into the instance, of the lines
#                         hostname=NAME
#                         authorized_key=ssh-ed25519 AAAA… (repeatable)
#   isc.identity        the same lines as a system credential (systemd-creds(1)), which a hypervisor
#                       hands over by SMBIOS or fw_cfg
#   mdata-get(8)        the metadata hostname and root_authorized_keys of SmartOS and OmniOS
#
# usage: isc-identity USER, the account that the keys are for ("-": none)

PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

root=${ISC_ROOT:-} # of tests
input=$root/etc/isc/identity
done=$root/etc/isc/identified

if [ $# -ne 1 ]; then
	echo "usage: $0 USER" >&2
	exit 96
fi
if [ -e "$done" ]; then
	exit 0
fi

# writable lets a directory of a read-only root be written, in memory; sealed ends it.
mounts=
writable() {
	if [ -w "$1" ] || [ ! -e "$1" ]; then
		return 0
	fi
	over=/run/isc/identity/$(echo "$1" | tr / .)
	mkdir -p "$over/upper" "$over/work" &&
		chown "$(stat -c %u:%g "$1")" "$over/upper" && chmod "$(stat -c %a "$1")" "$over/upper" &&
		mount -t overlay -o "nosuid,nodev,lowerdir=$1,upperdir=$over/upper,workdir=$over/work" isc-identity "$1" || return 1
	mounts="$mounts $1"
}
sealed() {
	for m in $mounts; do
		mount -o remount,ro "$m" || return 1
	done
}

name=
keys=
credential=$root/run/credentials/@system/isc.identity
if [ ! -f "$input" ] && [ -f "$credential" ]; then
	input=$credential
fi
if [ -f "$input" ]; then
	name=$(sed -n 's/^hostname=//p' "$input" | head -n 1)
	keys=$(sed -n 's/^authorized_key=//p' "$input")
elif command -v mdata-get >/dev/null 2>&1; then
	name=$(mdata-get hostname 2>/dev/null)
	keys=$(mdata-get root_authorized_keys 2>/dev/null)
fi

# What cannot be used is told, and keeps nothing else from being done.
status=0

# A name is that of RFC 1123; what else stands there is not written anywhere.
case "$name" in
"") ;;
-* | *[!A-Za-z0-9.-]*)
	echo "hostname: $name is no name" >&2
	status=96
	;;
*)
	if [ -d "$root/etc/svc/profile/node" ]; then # of Solaris 11.4
		cat >"$root/etc/svc/profile/node/isc-identity.xml" <<-END || exit 95
			<?xml version='1.0'?>
			<!DOCTYPE service_bundle SYSTEM '/usr/share/lib/xml/dtd/service_bundle.dtd.1'>
			<service_bundle type='profile' name='isc-identity'>
			  <service name='system/identity' type='service' version='1'>
			    <instance name='node' enabled='true'>
			      <property_group name='config' type='application'>
			        <propval name='nodename' type='astring' value='$name'/>
			      </property_group>
			    </instance>
			  </service>
			</service_bundle>
		END
		if [ -z "$root" ]; then
			svccfg apply /etc/svc/profile/node/isc-identity.xml || exit 95
		fi
	elif [ -d "$root/etc/svc" ]; then
		echo "$name" >"$root/etc/nodename" || exit 95
	elif [ -w "$root/etc" ]; then
		echo "$name" >"$root/etc/hostname" || exit 95
	fi
	if [ -z "$root" ]; then
		hostname "$name" || exit 95
	fi
	;;
esac

if [ -z "$root" ] && [ -d /etc/ssh ] && command -v ssh-keygen >/dev/null 2>&1; then
	writable /etc/ssh || exit 95
	ssh-keygen -A || exit 95
fi

# authorize gives the account its keys. The folders are its own: sshd reads them as the account.
authorize() {
	entry=$(grep "^$1:" "$root/etc/passwd")
	home=$(echo "$entry" | cut -d: -f6)
	ids=$(echo "$entry" | cut -d: -f3,4)
	case "$home" in
	"" | /)
		echo "$1 has no home for keys" >&2
		return 96
		;;
	esac
	if [ ! -d "$root$home" ]; then # as where /var is empty at every start
		(umask 022 && mkdir -p "$root$home") && chmod 750 "$root$home" && chown "$ids" "$root$home" || return 95
	fi
	ssh=$root$home/.ssh
	if [ -h "$ssh" ]; then # root writes nothing where somebody else has it write
		echo "$ssh is a link" >&2
		return 96
	fi
	writable "$root$home" && (
		umask 077
		mkdir -p "$ssh" && rm -f "$ssh/authorized_keys" && printf '%s\n' "$keys" >"$ssh/authorized_keys"
	) && chown "$ids" "$ssh" "$ssh/authorized_keys" || return 95
}
if [ -n "$keys" ] && [ "$1" != - ]; then
	authorize "$1" || status=$?
fi

sealed || exit 95
if [ "$status" -eq 0 ] && [ -w "$root/etc" ]; then
	mkdir -p "$root/etc/isc" || exit 95
	: >"$done" || exit 95
fi
exit "$status"
