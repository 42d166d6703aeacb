package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Zone is what controls ask of the configuration of a zone (zonecfg(8)).
type Zone struct {
	Flags     []string // security flags, sorted
	Drop      []string // privileges taken from the default set, sorted
	Exclusive bool     // its own IP stack
	Processes int      // caps that hold where the layout sets none
	LWPs      int
	ReadOnly  []string // subtrees of the root that are mounted read-only from the image

	Immutable  string   // file-mac-profile of Solaris
	Protection []string // link-protection of Solaris's anet

	p *Params // of the selection
}

// subtree returns the clean name of a directory whose path can stand in any file.
func subtree(path string) (string, error) {
	name, err := image.Clean(path)
	if err == nil && (name == "." || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-", r)
	})) {
		err = errors.New("only letters, digits and /._- can be mounted over")
	}
	if err != nil {
		return "", fmt.Errorf("readonly_config: %q: %w", path, err)
	}
	return name, nil
}

// mountable makes the subtrees that are to be mounted read-only directories: a zone whose mount points
// are missing does not start.
func mountable(p *Params) []Edit {
	var edits []Edit
	for _, path := range p.List("readonly_config") {
		edits = append(edits, func(root Root) error {
			name, err := subtree(path)
			if err != nil {
				return err
			}
			switch e, err := root.Stat(name); {
			case errors.Is(err, fs.ErrNotExist):
				return ensure(root, image.Entry{Name: name, Mode: fs.ModeDir | 0o755, GID: sysOf(p.OS), ModTime: p.Epoch}, nil)
			case err != nil:
				return err
			case !e.IsDir():
				return &malformedError{name, "is no directory that could be mounted over"}
			}
			return nil
		})
	}
	return edits
}

func (z *Zone) flag(name string) {
	z.Flags = append(z.Flags, name)
	slices.Sort(z.Flags)
}

// The Z controls: the configuration of the zone.
var zoneControls = []Control{
	{
		ID:    "Z01",
		Title: "The zone has no privileges that no service needs",
		Why:   "What root in the zone cannot do, an intruder cannot.",
		Refs:  []string{"STIG SOL-11.1-100020"},
		On: map[string]Method{Illumos: {
			How:  "zonecfg limitpriv: default without dtrace_proc, dtrace_user and proc_clock_highres, unless a service asks for them",
			Zone: func(z *Zone) { z.Drop = append(z.Drop, "dtrace_proc", "dtrace_user", "proc_clock_highres") },
		}},
	},
	{
		ID:    "Z02",
		Title: "The zone is given no devices",
		Why:   "A disk that a zone can write is one that the host's kernel reads.",
		Refs:  []string{"STIG SOL-11.1-100030"},
		On: map[string]Method{
			Illumos: {How: "zonecfg: no resource device", Zone: func(*Zone) {}},
			Linux:   {How: "units: PrivateDevices; dock: no device of the host's", Dock: "the guest is given no device but its own disks and interfaces"},
		},
	},
	{
		ID:    "Z03",
		Title: "The zone cannot use up the host",
		Why:   "One container must not starve the others.",
		On: map[string]Method{
			Illumos: {
				How:  "zonecfg: the caps of the spec; without one 1000 processes and 4000 LWPs",
				Zone: func(z *Zone) { z.Processes, z.LWPs = 1000, 4000 },
			},
			Linux: {
				How:  "the caps of the spec in the units, and in the dock",
				Dock: "memory, processes and CPUs are capped as this document says",
			},
		},
	},
	{
		ID:    "Z04",
		Title: "The root goes back to what was published",
		Why:   "What an intruder leaves must not outlive a reset.",
		On: map[string]Method{
			Illumos: {
				How:  "dock: the root is a clone of a held snapshot of the image, and is reset to it",
				Dock: "the golden snapshot of the image is held; resets roll back to it",
			},
			Solaris: {
				How:  "zonecfg file-mac-profile=fixed-configuration: root of the zone changes neither programs nor configuration but at the first start and after zoneadm boot -w",
				Zone: func(z *Zone) { z.Immutable = "fixed-configuration" },
			},
			Linux: {
				How:  "dock: a root that is read-only and verified (dm-verity), or a clone of a held snapshot; units: ProtectSystem=strict",
				Dock: "the root is read-only and verified, or the golden snapshot is held and resets roll back to it",
			},
		},
	},
	{
		ID:    "Z05",
		Title: "The zone has its own IP stack",
		Why:   "With a shared one it sees, and depends on, the network of others.",
		On: map[string]Method{
			Illumos: {
				How:  "zonecfg ip-type=exclusive",
				Zone: func(z *Zone) { z.Exclusive = true },
			},
			Linux: {How: "dock: a network namespace, or interfaces of a guest", Dock: "the guest has a network of its own: no interface and no namespace of the host's"},
		},
	},
	{
		ID:    "Z06",
		Title: "Configuration that nothing in the zone writes is mounted read-only",
		Why: "Not even root of the zone can change what the host has mounted: services, methods and profiles stay those of the image without a check. " +
			"On Linux, Z04 and the sandbox of units make the whole root read-only.",
		Scope: ImageOnly,
		Parameters: []Parameter{{
			Name: "readonly_config", Default: "/etc/default,/etc/svc/profile/site,/lib/svc/manifest/site,/lib/svc/method", Type: List,
			What: "directories that are mounted from the image's golden copy; what is written at the first start, such as /etc/ssh, cannot be",
		}},
		On: map[string]Method{Illumos: {
			How:   "zonecfg resource fs, type lofs, options ro and nodevices: each of ${readonly_config} from the golden copy; they are directories of the image",
			Globs: []string{"etc/**", "lib/svc/**"},
			Edits: mountable,
			Zone:  func(z *Zone) { z.ReadOnly = z.p.List("readonly_config") },
		}},
		Absent: map[string]string{Solaris: "the zone's file-mac-profile holds all of the configuration (Z04)"},
	},
}
