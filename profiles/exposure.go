package profiles

import (
	"fmt"
	"slices"
	"strings"
)

// What the security analysis of systemd holds against a unit (systemd-analyze(1), security, of systemd 252;
// src/analyze/analyze-security.c): the sum of the weights of what it may do, as a share of the weights of
// all that is assessed, from 0.0 to 10.0. Most of it is the same for all units that have all of [sandbox].
const (
	assessedWeight = 56460
	sandboxedBad   = 7570 // of what sandbox leaves
	rootBad        = 2000
	rootAssessed   = -300 // is not asked for its groups and its System V objects
	userBad        = 100  // leaves System V objects behind
	ambientBad     = 500
	procBad        = 1000 // without ProtectProc=invisible
)

// capabilityGroups are capabilities that count together, as far as sandbox leaves them.
var capabilityGroups = []struct {
	bad  int
	caps string
}{
	{1500, "CAP_SYS_ADMIN"},
	{1500, "CAP_SETUID CAP_SETGID CAP_SETPCAP"},
	{1500, "CAP_SYS_PTRACE"},
	{1000, "CAP_NET_ADMIN"},
	{1000, "CAP_CHOWN CAP_FSETID CAP_SETFCAP"},
	{1000, "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_IPC_OWNER"},
	{500, "CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_AUDIT_WRITE"},
	{500, "CAP_SYS_NICE CAP_SYS_RESOURCE"},
	{500, "CAP_KILL"},
	{500, "CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_RAW"},
	{100, "CAP_SYS_BOOT"},
	{100, "CAP_MAC_ADMIN CAP_MAC_OVERRIDE"},
	{75, "CAP_LINUX_IMMUTABLE"},
	{50, "CAP_IPC_LOCK"},
	{50, "CAP_SYS_CHROOT"},
	{25, "CAP_BLOCK_SUSPEND"},
	{25, "CAP_LEASE"},
	{25, "CAP_SYS_TTY_CONFIG"},
	{25, "CAP_SYS_PACCT"},
	{25, "CAP_BPF"},
}

var familyBad = map[string]int{"AF_UNIX": 25, "AF_INET": 1500, "AF_INET6": 0, "AF_NETLINK": 200, "AF_PACKET": 1000}

// neutral are the keys of services that the analysis does not ask for.
var neutral = []string{
	"Type", "ExecStart", "Group", "WorkingDirectory", "Environment", "EnvironmentFile", "Restart", "RestartSec", "TimeoutSec",
	"ReadWritePaths", "Slice", "LimitMEMLOCK",
}

// exposure returns what systemd-analyze(1) says of a unit in our sandbox, such as "1.9", and nothing of
// other units: those need the system's own lists of calls.
func exposure(unit string) string {
	service := map[string]string{}
	section := ""
	for _, line := range lines(unit) {
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if section != "[Service]" || !ok || slices.Contains(neutral, key) {
			continue
		}
		if _, twice := service[key]; twice {
			return ""
		}
		service[key] = value
	}
	for _, line := range sandbox {
		key, value, _ := strings.Cut(line, "=")
		if service[key] != value {
			return ""
		}
		delete(service, key)
	}
	bad, assessed := sandboxedBad, assessedWeight
	if user, ok := service["User"]; ok && user != "root" {
		bad += userBad
	} else {
		bad += rootBad
		assessed += rootAssessed
	}
	if service["AmbientCapabilities"] != "" {
		bad += ambientBad
	}
	switch service["ProtectProc"] {
	case "invisible":
	case "":
		bad += procBad
	default:
		return ""
	}
	for _, f := range strings.Fields(service["RestrictAddressFamilies"]) {
		n, ok := familyBad[f]
		if !ok {
			return ""
		}
		bad += n
	}
	bound, bounded := service["CapabilityBoundingSet"]
	bound, others := strings.CutPrefix(bound, "~")
	named := strings.Fields(bound)
	for _, g := range capabilityGroups {
		if slices.ContainsFunc(strings.Fields(g.caps), func(c string) bool { return slices.Contains(named, c) != (others || !bounded) }) {
			bad += g.bad
		}
	}
	for _, key := range []string{"User", "AmbientCapabilities", "ProtectProc", "RestrictAddressFamilies", "CapabilityBoundingSet"} {
		delete(service, key)
	}
	if len(service) > 0 {
		return ""
	}
	tenths := (bad*100 + assessed - 1) / assessed
	return fmt.Sprintf("%d.%d", tenths/10, tenths%10)
}
