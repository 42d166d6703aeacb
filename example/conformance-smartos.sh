#!/bin/sh
# shellcheck disable=SC2016 # the inner shells expand these
# Proves on a real SmartOS host what could not be proven where iscadm is developed: that imgadm installs
# the stream, from files and from an image source, that a zone of it boots, and that SMF imports the
# manifests that were moved to site. It makes one zone, prints PASS or FAIL for every step, and removes
# zone and image again.
#
#   conformance-smartos.sh IMAGE [ARTIFACT]
#
# IMAGE is a reference to an illumos image with a zfs block of layout root, ARTIFACT its id (default zfs).
# Run it as root in the global zone, with iscadm in PATH. Send the output with a report.
set -u

image=${1:?usage: $0 IMAGE [ARTIFACT]}
artifact=${2:-zfs}
work=$(mktemp -d) || exit 1
failed=0
uuid=
zone=
server=

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
	[ -z "$zone" ] || vmadm delete "$zone"
	[ -z "$uuid" ] || imgadm delete "$uuid"
	imgadm sources -d http://127.0.0.1:8765
	[ -z "$server" ] || kill "$server"
	rm -rf "$work"
}
trap 'clean >/dev/null 2>&1' EXIT

uname -a
iscadm --version
step 'export the stream' iscadm export "$image" "$artifact" -o "$work/stream"
step 'export the manifest' iscadm export "$image" "$artifact/imgmanifest" -o "$work/manifest"
uuid=$(json uuid <"$work/manifest")
step 'imgadm installs the files' imgadm install -m "$work/manifest" -f "$work/stream"
step 'the guid is that of the manifest' sh -c '
	[ "$(zfs get -Hpo value guid zones/'"$uuid"'@final)" = "$(json files.0.dataset_guid <'"$work"'/manifest)" ]'
step 'imgadm deletes the image' imgadm delete "$uuid"

step 'copy the image into the folder of a source' iscadm copy "$image" "oci:$work/registry/conformance:1"
iscadm serve --listen 127.0.0.1:8765 --dir "$work/registry" >/dev/null 2>&1 &
server=$!
sleep 2
step 'imgadm takes the source' imgadm sources -a http://127.0.0.1:8765
step 'imgadm finds the image' sh -c 'imgadm avail -H -o uuid | grep -qx '"$uuid"
step 'imgadm imports it' imgadm import -S http://127.0.0.1:8765 "$uuid"

printf '{"brand":"joyent","image_uuid":"%s","alias":"isc-conformance","max_physical_memory":512,"quota":5}' "$uuid" >"$work/vm.json"
step 'vmadm makes a zone' vmadm create -f "$work/vm.json"
zone=$(vmadm lookup -1 alias=isc-conformance)
step 'SMF reaches multi-user' sh -c '
	i=0
	while [ $i -lt 120 ]; do
		[ "$(zlogin '"$zone"' svcs -H -o state milestone/multi-user:default)" = online ] && exit 0
		i=$((i + 1))
		sleep 5
	done
	exit 1'
step 'SMF imported what is in site' sh -c '
	for m in /zones/'"$zone"'/site/*.xml; do
		[ -e "$m" ] || continue
		sed -n "s/.*<service[^>]* name=.\\([^\"'"'"']*\\)[\"'"'"'].*/\\1/p" "$m" | head -1
	done | while read -r s; do zlogin '"$zone"' svcs -H "$s" || exit 1; done'
step 'no service is in maintenance' sh -c '[ -z "$(zlogin '"$zone"' svcs -xv)" ]'

echo "$failed failed"
[ "$failed" -eq 0 ]
