package profiles

import (
	"maps"
	"strings"
	"testing"
)

// siteValues are what a site could give.
var siteValues = map[string]string{
	"name": "web01", "address": "10.80.0.11/24", "router": "10.80.0.1", "uplink": "isc0", "outside": "net0", "zonepath": "/zones/web01",
	"golden": "/isc/golden/web", "dataset": "rpool/isc/web01",
}

// bundle returns all files of a dock.
func bundle(t *testing.T, os string) map[string]string {
	t.Helper()
	l := webLayout(os)
	l.Network.Publish = map[string]string{"443/tcp": "8080/tcp"}
	p, err := Load("isc-strict")
	if err != nil {
		t.Fatal(err)
	}
	s, err := p.Select(os, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := l.Dock(s)
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseDock(data)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := l.Zonecfg(s, "")
	if err != nil {
		t.Fatal(err)
	}
	files := maps.Clone(d.Files)
	files["zonecfg"] = string(cfg)
	return files
}

func TestFill(t *testing.T) {
	for _, os := range Platforms {
		files := bundle(t, os)
		filled, err := Fill(files, siteValues)
		if err != nil {
			t.Fatal(err)
		}
		if len(filled) != len(files) {
			t.Errorf("%s: %d files of %d", os, len(filled), len(files))
		}
		for name, text := range filled {
			if tokenForm.MatchString(text) {
				t.Errorf("%s: %s has a token left:\n%s", os, name, text)
			}
			for i, line := range lines(text) {
				if strings.HasPrefix(name, "ipf") && name != "ipnat.conf" && !strings.HasPrefix(line, "#") {
					if err := parseIPF(line); err != nil {
						t.Errorf("%s:%d: %v", name, i+1, err)
					}
				}
			}
		}
		for name, want := range map[string]string{
			"zonecfg": "set allowed-address=10.80.0.11/24\n", "vnic.sh": "-l \"$UPLINK\" web01_0\n", "ipnat.conf": "rdr net0 0.0.0.0/0 port 443 -> 10.80.0.11 port 8080 tcp\n",
			"pf.conf": "to port 443 rdr-to 10.80.0.11 port 8080\n", "nftables.conf": "table inet isc-web01 {\n",
		} {
			if text, ok := filled[name]; ok && !strings.Contains(text, want) {
				t.Errorf("%s: %s lacks %q:\n%s", os, name, want, text)
			}
		}
		// Every value that is missing is named with the files that want it, and nothing is returned.
		for name := range siteValues {
			less := maps.Clone(siteValues)
			delete(less, name)
			wanted := false
			for _, text := range files {
				for _, line := range lines(text) {
					wanted = wanted || !strings.HasPrefix(line, "#   @") && strings.Contains(line, "@"+strings.ToUpper(name)+"@")
				}
			}
			if half, err := Fill(files, less); wanted && (err == nil || half != nil || !strings.Contains(err.Error(), "no "+name+", for ")) {
				t.Errorf("%s without %s: %v, %v", os, name, half, err)
			}
		}
	}
}

// TestFillHostile: no value breaks out of a word, a string or an element.
func TestFillHostile(t *testing.T) {
	files := bundle(t, Illumos)
	for _, token := range Tokens {
		for _, v := range []string{
			"", " ", "a b", "a\nb", "a;reboot", "$(reboot)", "`reboot`", "a\"b", "a'b", "a<b", "a&b", "@NAME@", "-F", "--", "../x", "/a/../b", "//x", "a|b", "#", "{", "}", "\x00",
			"10.0.0.1;", "10.0.0.1/33", "0.0.0.0/0", "127.0.0.1/8", "10.0.0.1/24 flags", "fe80::1%net0/64", "::/0", "224.0.0.1/4", "10.0.0.01/24", strings.Repeat("a", 300), "é",
		} {
			if v == "" {
				continue // left out
			}
			values := maps.Clone(siteValues)
			values[token.Name] = v
			if filled, err := Fill(files, values); err == nil && token.form(v) {
				for name, text := range filled {
					if strings.ContainsAny(v, " \n;$`\"'<&|#{}\x00") && strings.Contains(text, v) {
						t.Errorf("%s %q stands in %s", token.Name, v, name)
					}
				}
			} else if err == nil {
				t.Errorf("%s %q was taken", token.Name, v)
			}
		}
	}
	for what, values := range map[string]map[string]string{
		"ip \"10.80.0.12\" is not that of": {"ip": "10.80.0.12"},
		"is not in the network of":         {"router": "10.81.0.1"},
		"translates addresses of IPv4":     {"address": "2001:db8::11/64", "router": "2001:db8::1"},
		`did you mean "address"?`:          {"adress": "x"},
	} {
		all := maps.Clone(siteValues)
		maps.Copy(all, values)
		if _, err := Fill(files, all); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v: %v, want %s", values, err, what)
		}
	}
}
