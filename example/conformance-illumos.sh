#!/bin/sh
# shellcheck disable=SC2016 # the inner shells expand these
# Proves on a real OmniOS host what could not be proven where iscadm is developed: that zoneadm installs
# the zone archive or the send stream, that SMF imports the manifests and the hardening profile, and that the configuration
# file is accepted. It makes one zone, prints PASS or FAIL for every step, and removes the zone again.
#
#   conformance-illumos.sh IMAGE [ZONE [ZONEPATH-PARENT [ARTIFACT]]]
#
# ARTIFACT is zone, or zfs for the stream. IMAGE is a reference to an illumos image, such as oci:images:web-1.0.0, with a base of the same release
# as the host. Run it as root in the global zone, with iscadm in PATH. Send the output with a report.
set -u

image=${1:?usage: $0 IMAGE [ZONE [ZONEPATH-PARENT [ARTIFACT]]]}
zone=${2:-isc-conformance}
parent=${3:-/zones}
artifact=${4:-zone}
zonecfg=dock/zonecfg
[ "$artifact" = zone ] || zonecfg=dock/$artifact/zonecfg
vnic=isccf0
work=$(mktemp -d) || exit 1
failed=0

step() {
	name=$1
	shift
	if "$@" >"$work/out" 2>&1; then
		echo "PASS $name"
	else
		echo "FAIL $name (status $?)"
		sed 's/^/     /' "$work/out"
		failed=$((failed + 1))
	fi
}

clean() {
	zoneadm -z "$zone" halt
	zoneadm -z "$zone" uninstall -F
	zonecfg -z "$zone" delete -F
	dladm delete-vnic "$vnic"
	rm -rf "$work"
}
trap 'clean >/dev/null 2>&1' EXIT

uname -a
cat /etc/release 2>/dev/null
iscadm --version
link=$(dladm show-phys -p -o link | head -1)

step 'export the archive' iscadm export "$image" "$artifact" -o "$work/zone"
step 'export the configuration' iscadm export "$image" "$zonecfg" -o "$work/zonecfg"
step 'export the content manifest' iscadm export "$image" content -o "$work/content"
sed -e "s|@NAME@|$zone|g" -e "s|@ZONEPATH@|$parent/$zone|g" -e "s|@PHYSICAL@|$vnic|g" \
	-e 's|@ADDRESS@|192.0.2.10/24|g' -e 's|@ROUTER@|192.0.2.1|g' "$work/zonecfg" |
	sed '/^add dataset/,/^end/d' >"$work/zonecfg.site"
step 'make the VNIC' dladm create-vnic -l "$link" "$vnic"
step 'zonecfg takes the configuration' zonecfg -z "$zone" -f "$work/zonecfg.site"
step 'zoneadm installs the archive' zoneadm -z "$zone" install -s "$work/zone"
step 'the zone boots' zoneadm -z "$zone" boot
step 'SMF reaches multi-user' sh -c '
	i=0
	while [ $i -lt 120 ]; do
		[ "$(zlogin '"$zone"' svcs -H -o state milestone/multi-user:default)" = online ] && exit 0
		i=$((i + 1))
		sleep 5
	done
	exit 1'
step 'no service is in maintenance' sh -c '[ -z "$(zlogin '"$zone"' svcs -xv)" ]'
step 'the hardening profile is applied' sh -c '[ "$(zlogin '"$zone"' svcprop -p default/noexecstack system/process-security:default)" = true ]'
step 'root has no password' sh -c 'zlogin '"$zone"' grep -q "^root:NP:\|^root:\*LK\*:" /etc/shadow'
step 'the root differs only where the first boot writes' sh -c '
	iscadm clone '"$image"' conformance --to dir:'"$work"'/golden --state '"$work"'/state >/dev/null &&
	diff -r -q '"$work"'/golden/conformance/root '"$parent/$zone"'/root 2>/dev/null |
	grep -Ev "etc/svc|var/svc|etc/mnttab|var/(adm|log|run|cron|spool)|etc/(ssh|nodename|inet|ipadm|dladm)|/(proc|dev|tmp|system)" >'"$work"'/differences
	[ ! -s '"$work"'/differences ] || { cat '"$work"'/differences; exit 1; }'

# What a ZFS stream is good for, if the image has one: PLACE is made below the dataset of the zones.
place=$(zfs list -H -o name "$parent" 2>/dev/null)/isc-conformance
if iscadm export "$image" zfs -o "$work/stream" >/dev/null 2>&1 && zfs create "$place"; then
	state="--state $work/zfs-state"
	step 'clone on ZFS' sh -c "iscadm clone '$image' conf --to 'zfs:$place' $state"
	step 'check finds a clone clean' sh -c "iscadm check --full conf $state"
	step 'drift is found' sh -c "touch \"\$(zfs get -H -o value mountpoint '$place')/conf/root/evil\"; iscadm check conf $state; [ \$? -eq 3 ]"
	step 'reset on ZFS' sh -c "iscadm reset -F --keep conf $state && iscadm check conf $state"
	step 'snapshot and rollback on ZFS' sh -c "iscadm snapshot conf@s $state && iscadm rollback -F conf@s $state && iscadm check conf $state"
	step 'the scratch is encrypted' sh -c "[ \"\$(zfs get -H -o value encryption '$place/conf/scratch')\" = aes-256-gcm ]"
	step 'destroy on ZFS' sh -c "iscadm destroy -F conf $state && iscadm prune $state"
	zfs destroy -r "$place"
	zoneadm -z "$zone" halt
	step 'uninstall' zoneadm -z "$zone" uninstall -F
	step 'zoneadm installs the stream' zoneadm -z "$zone" install -s "$work/stream"
	step 'the zone boots from the stream' zoneadm -z "$zone" boot
fi
if command -v imgadm >/dev/null && iscadm export "$image" zfs/imgmanifest -o "$work/manifest" >/dev/null 2>&1; then
	step 'imgadm installs the stream' imgadm install -m "$work/manifest" -f "$work/stream"
fi

echo "$failed failed"
[ "$failed" -eq 0 ]
