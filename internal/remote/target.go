package remote

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// A Target is an account on a machine.
type Target struct {
	User string // empty: the name of who runs this program
	Host string // name or address
	Port int    // 0: 22
	Jump []Host // machines to go through, the nearest first
	Key  string // path of a private key file, beside those of the agent
}

// A Host is one hop on the way.
type Host struct {
	User string
	Name string
	Port int
}

// ParseTarget reads an address of the form
//
//	ssh://[USER@]HOST[:PORT][/PATH][?jump=[USER@]HOST[:PORT],…][&key=FILE]
//
// and returns the path, without the slash, beside the target. A password in it is refused.
func ParseTarget(s string) (t Target, path string, err error) {
	fail := func(err error) (Target, string, error) { return Target{}, "", fmt.Errorf("address %q: %w", s, err) }
	u, err := url.Parse(s)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return fail(err)
	}
	if u.Scheme != "ssh" || u.Opaque != "" {
		return fail(errors.New("is not ssh://[USER@]HOST[:PORT]"))
	}
	if u.Fragment != "" {
		return fail(errors.New("has a fragment"))
	}
	h, err := hostOf(u)
	if err != nil {
		return fail(err)
	}
	t = Target{User: h.User, Host: h.Name, Port: h.Port}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail(err)
	}
	for name, values := range q {
		if len(values) != 1 || values[0] == "" {
			return fail(fmt.Errorf("parameter %q: give one value", name))
		}
		switch name {
		case "jump":
			for hop := range strings.SplitSeq(values[0], ",") {
				ju, err := url.Parse("ssh://" + hop)
				if err != nil || ju.Path != "" || ju.RawQuery != "" || ju.Fragment != "" {
					return fail(fmt.Errorf("jump host %q: is not [USER@]HOST[:PORT]", hop))
				}
				jh, err := hostOf(ju)
				if err != nil {
					return fail(fmt.Errorf("jump host %q: %w", hop, err))
				}
				t.Jump = append(t.Jump, jh)
			}
		case "key":
			t.Key = values[0]
		default:
			return fail(fmt.Errorf("parameter %q: use jump or key", name))
		}
	}
	return t, strings.TrimPrefix(u.Path, "/"), nil
}

func hostOf(u *url.URL) (Host, error) {
	h := Host{Name: u.Hostname(), User: u.User.Username()}
	if _, ok := u.User.Password(); ok {
		return h, errors.New("has a password: use a key")
	}
	// What ssh refuses as well: names go into a log and a file of hosts.
	if h.Name == "" || strings.HasPrefix(h.Name, "-") || strings.ContainsAny(h.Name, " \t\n\r\"'`$\\;&<>|(){},*?!#") {
		return h, fmt.Errorf("host %q: is no name or address", h.Name)
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return h, fmt.Errorf("port %q: is not from 1 to 65535", p)
		}
		h.Port = int(n)
	}
	return h, nil
}

func (h Host) addr() string {
	port := h.Port
	if port == 0 {
		port = 22
	}
	return net.JoinHostPort(h.Name, strconv.Itoa(port))
}

func (t Target) host() Host { return Host{t.User, t.Host, t.Port} }
