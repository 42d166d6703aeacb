package profiles

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
)

const sshdConfig = "etc/ssh/sshd_config"

// sshdGlobs are the files that an ssh server reads unless it is told otherwise.
var sshdGlobs = []string{sshdConfig, "etc/ssh/sshd_config.d/*.conf"}

// An sshdLine is a line of sshd_config(5) that says something.
type sshdLine struct {
	file       string
	number     int // from 1
	key, value string
	match      string // the Match line above it, or empty: those it holds for
}

// sshdLines returns what the ssh server reads, in its order: included files stand in the place of their
// Include. A Match ends with its file, and holds for what is included below it.
func sshdLines(root Root) ([]sshdLine, error) {
	var all []sshdLine
	type visit struct {
		file string
		some bool // only for some connections
	}
	read := map[visit]bool{}
	var include func(file, match string) error
	include = func(file, match string) error {
		file, err := follow(root, file)
		if err != nil {
			return err
		}
		v := visit{file, match != ""}
		if read[v] {
			return nil // it says nothing new, and may include itself
		}
		read[v] = true
		e, err := root.Stat(file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!e.IsRegular() || e.Size > maxText) {
			return nil
		}
		if err != nil {
			return err
		}
		text, err := readText(root, file)
		if err != nil {
			return err
		}
		for i, line := range lines(text) {
			key, value := keyword(line)
			switch key {
			case "":
			case "match":
				match = strings.TrimSpace(line)
			case "include":
				for _, pattern := range strings.Fields(strings.ReplaceAll(value, `"`, " ")) {
					if !path.IsAbs(pattern) {
						pattern = "/etc/ssh/" + pattern
					}
					pattern = path.Clean(pattern)
					if _, err := image.NewMatcher(pattern); err != nil {
						continue // for the server, too, it matches nothing
					}
					names, err := root.Glob(pattern)
					if err != nil {
						return err
					}
					for _, n := range names {
						if err := include(n, match); err != nil {
							return err
						}
					}
				}
			default:
				all = append(all, sshdLine{file, i + 1, key, value, match})
			}
		}
		return nil
	}
	return all, include(sshdConfig, "")
}

// overridden returns the check that no Match gives a keyword another value for some connections. Such lines
// are for people to decide on: who wrote one wanted something by it.
func overridden(pairs []string) func(Root, *Params) (Inspection, error) {
	return func(root Root, p *Params) (Inspection, error) {
		var in Inspection
		all, err := sshdLines(root)
		for _, l := range all {
			for i := 0; i+1 < len(pairs) && l.match != ""; i += 2 {
				if want := p.expand(pairs[i+1]); l.key == strings.ToLower(pairs[i]) && l.value != want {
					in.Findings = append(in.Findings, Finding{
						l.file, fmt.Sprintf("line %d: %s %.120q holds below %.120q, in place of %q", l.number, pairs[i], l.value, l.match, want),
					})
				}
			}
		}
		return in, err
	}
}

// sshPorts returns the ports that the ssh server opens to others: those of its addresses, if it is given
// any, else those of Port.
func sshPorts(root Root) ([]string, error) {
	all, err := sshdLines(root)
	if err != nil {
		return nil, err
	}
	var ports, addresses []string
	for _, l := range all {
		switch {
		case l.match != "":
		case l.key == "port":
			ports = append(ports, l.value)
		case l.key == "listenaddress":
			addresses = append(addresses, l.value)
		}
	}
	if ports == nil {
		ports = []string{"22"}
	}
	open := ports
	if addresses != nil {
		open = nil
	}
	for _, a := range addresses {
		switch host, port := listenAddress(a); {
		case strings.HasPrefix(host, "127.") || host == "::1" || host == "localhost":
		case port == "":
			open = append(open, ports...)
		default:
			open = append(open, port)
		}
	}
	names, err := portNames(root)
	if err != nil {
		return nil, err
	}
	var stated []string
	for _, port := range open {
		if p, err := ParsePort(orElse(names[port+"/tcp"], port+"/tcp")); err == nil {
			stated = append(stated, p.String())
		}
	}
	slices.Sort(stated)
	return slices.Compact(stated), nil
}

// listenAddress splits a value of ListenAddress: host, host:port, IPv6 address or [host]:port, and a
// routing domain behind it.
func listenAddress(value string) (host, port string) {
	if f := strings.Fields(value); len(f) > 0 {
		host = f[0]
	}
	if strings.Count(host, ":") > 1 && !strings.HasPrefix(host, "[") {
		return host, ""
	}
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i+1:]
	}
	return strings.Trim(host, "[]"), port
}
