package profiles

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A Token is what the files of a dock leave to the site, and is written as @NAME@ there.
type Token struct {
	Name string // in lower case: of the option and the site value, too
	What string // for people
	form func(string) bool
}

// Tokens are all of them. Their values are of forms that end no word, string or element of any file they
// stand in: shell, zonecfg(8), XML, ipf(5), pf.conf(7), nft(8).
var Tokens = []Token{
	{"name", "name of the instance, and of its zone", regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`).MatchString},
	{"address", "its address with prefix length, such as 10.80.0.11/24", prefix},
	{"ip", "its address alone, which follows from the other", address},
	{"router", "its default router, such as 10.80.0.1", address},
	{"physical", "its interface on the host, such as web01_0", linkForm.MatchString},
	{"uplink", "the link or etherstub that its interface is made over, such as isc0", linkForm.MatchString},
	{"outside", "the host's interface that published ports come in by, such as net0", linkForm.MatchString},
	{"zonepath", "its zonepath, such as /zones/web01", absolute},
	{"golden", "where the root of the image is mounted on the host, read-only", absolute},
	{"dataset", "the dataset delegated to it, such as rpool/isc/web01", regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*$`).MatchString},
}

// linkForm is that of names of links: dladm(8) has at most 31 characters, Linux 15.
var linkForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,30}$`)

func prefix(s string) bool {
	p, err := netip.ParsePrefix(s)
	return err == nil && p.String() == s && usable(p.Addr())
}

func address(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.String() == s && usable(a)
}

// usable refuses what is no host's address, and zones, which are names of interfaces.
func usable(a netip.Addr) bool {
	return a.Zone() == "" && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.Is4In6()
}

var pathForm = regexp.MustCompile(`^/[A-Za-z0-9/._-]+$`)

func absolute(s string) bool { return pathForm.MatchString(s) && path.Clean(s) == s }

// CheckToken returns what is wrong with the value of a token.
func CheckToken(name, value string) error {
	i := slices.IndexFunc(Tokens, func(t Token) bool { return t.Name == name })
	if i < 0 {
		var names []string
		for _, t := range Tokens {
			names = append(names, t.Name)
		}
		return fmt.Errorf("no value %q for an instance%s", name, didYouMean(name, names))
	}
	if !Tokens[i].form(value) {
		return fmt.Errorf("%s %q is not %s", name, value, Tokens[i].What)
	}
	return nil
}

// tokenForm is how a token is written.
var tokenForm = regexp.MustCompile(`@[A-Z]+@`)

// ipv4Only are the beginnings of rules that translate addresses, which is of IPv4.
var ipv4Only = []string{" dnat ip to ", " ip saddr ", "rdr @OUTSIDE@", "map @OUTSIDE@", " on @OUTSIDE@ inet "}

// Fill puts values, by names of [Tokens], for the tokens of files, by their names. The address gives the
// ip, and the name of an instance that of its interface, unless those have values. If any token is left
// no file is returned: what is half filled must not be loaded.
func Fill(files, values map[string]string) (map[string]string, error) {
	v := maps.Clone(values)
	if v == nil {
		v = map[string]string{}
	}
	if p, err := netip.ParsePrefix(v["address"]); err == nil && v["ip"] == "" {
		v["ip"] = p.Addr().String()
	}
	if name := strings.NewReplacer("-", "_", ".", "_").Replace(v["name"]) + "_0"; v["physical"] == "" && v["name"] != "" && linkForm.MatchString(name) {
		v["physical"] = name
	}
	var errs []error
	for _, name := range sortedKeys(v) {
		if err := CheckToken(name, v[name]); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if p, err := netip.ParsePrefix(v["address"]); err == nil {
		if v["ip"] != p.Addr().String() {
			return nil, fmt.Errorf("ip %q is not that of address %q", v["ip"], v["address"])
		}
		if r, err := netip.ParseAddr(v["router"]); err == nil && !p.Contains(r) {
			return nil, fmt.Errorf("router %q is not in the network of address %q", v["router"], v["address"])
		}
	}
	six := strings.Contains(v["ip"], ":")
	missing := map[string][]string{} // by token, the files that want it
	filled := map[string]string{}
	for _, name := range sortedKeys(files) {
		text := files[name]
		if six && slices.ContainsFunc(ipv4Only, func(rule string) bool { return strings.Contains(text, rule) }) {
			errs = append(errs, fmt.Errorf("%s translates addresses of IPv4, and %q is none", name, v["ip"]))
		}
		lines := strings.SplitAfter(text, "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "#   @") {
				lines[i] = "" // it says what a token is for
				continue
			}
			lines[i] = tokenForm.ReplaceAllStringFunc(line, func(token string) string {
				key := strings.ToLower(strings.Trim(token, "@"))
				want := key
				if key == "ip" {
					want = "address" // which it follows from
				}
				if v[key] == "" && !slices.Contains(missing[want], name) {
					missing[want] = append(missing[want], name)
				}
				return v[key]
			})
		}
		filled[name] = strings.Join(lines, "")
	}
	for _, key := range sortedKeys(missing) {
		errs = append(errs, fmt.Errorf("no %s, for %s", key, strings.Join(missing[key], ", ")))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return filled, nil
}
