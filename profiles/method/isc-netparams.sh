#!/bin/sh
#
# Start method of svc:/site/isc-netparams: sets parameters of the network stack for as long as the
# zone runs. They are the properties of the service's groups ip, ipv4, ipv6 and tcp; numbers are
# values of private parameters, whose names begin with an underscore:
#
#   svccfg -s isc-netparams:default setprop tcp/conn_req_max_q = count: 1024

PATH=/usr/sbin:/usr/bin:/sbin
export PATH

# Exit statuses of smf_method(7).
SMF_EXIT_OK=0
SMF_EXIT_ERR_CONFIG=96

if [ -z "$SMF_FMRI" ]; then
	echo "usage: run by svc.startd with SMF_FMRI set" >&2
	exit $SMF_EXIT_ERR_CONFIG
fi

# A zone that shares the stack of its host has the host's parameters.
if [ "$(zonename)" != global ] && ! ipadm show-prop -c -o current -p hostmodel ipv4 >/dev/null 2>&1; then
	echo "this zone has no network stack of its own: its host sets the parameters"
	exit $SMF_EXIT_OK
fi

failed=
for protocol in ip ipv4 ipv6 tcp; do
	# Lines of svcprop are: group/name type value.
	for line in $(svcprop -p "$protocol" "$SMF_FMRI" 2>/dev/null | awk '{ print $1 "=" $3 }'); do
		name=${line#*/}
		case "$name" in
		*=[0-9]*) name=_$name ;;
		esac
		if ! ipadm set-prop -t -p "$name" "$protocol"; then
			failed="$failed $protocol:$name"
		fi
	done
done
if [ -n "$failed" ]; then
	echo "these parameters were not set:$failed" >&2
	exit $SMF_EXIT_ERR_CONFIG
fi
exit $SMF_EXIT_OK
