package profiles

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An ipfParser reads a rule of ipf(5), of what its "FILTER RULE GRAMMAR" has.
type ipfParser struct {
	words []string
	err   error
}

func (p *ipfParser) next() string {
	if len(p.words) == 0 {
		if p.err == nil {
			p.err = fmt.Errorf("ends too early")
		}
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *ipfParser) take(words ...string) bool {
	if len(p.words) > 0 && slices.Contains(words, p.words[0]) {
		p.words = p.words[1:]
		return true
	}
	return false
}

func (p *ipfParser) want(what string, ok bool) {
	if !ok && p.err == nil {
		p.err = fmt.Errorf("%s expected before %q", what, p.words)
	}
}

// parseIPF reads a rule in the order that the grammar has.
func parseIPF(line string) error {
	p := &ipfParser{words: strings.Fields(line)}
	action, _, _ := strings.Cut(p.next(), "(")
	p.want("an action", slices.Contains([]string{"block", "pass", "log", "count"}, action))
	for len(p.words) > 0 && strings.HasPrefix(p.words[0], "return-") {
		p.next()
	}
	p.want("in or out", p.take("in", "out"))
	if p.take("log") {
		for p.take("body", "first", "or-block") {
		}
	}
	p.take("quick")
	if p.take("on") {
		p.next()
	}
	if p.take("dup-to", "to") {
		p.next()
	}
	p.take("fastroute")
	if p.take("tos", "ttl") {
		p.next()
	}
	if p.take("proto") {
		p.next()
	}
	if !p.take("all") {
		p.want("from", p.take("from"))
		p.object()
		p.want("to", p.take("to"))
		p.object()
	}
	for p.err == nil && len(p.words) > 0 {
		switch p.next() {
		case "flags", "icmp-type", "code", "head", "group", "tag":
			p.next()
		case "with", "and":
			p.take("not", "no")
			if p.take("opt") {
				p.next()
			} else {
				p.want("a condition", p.take("short", "frag", "frags", "ipopts", "nat", "multicast", "bcast", "mbcast", "lowttl", "bad", "oow"))
			}
		case "keep":
			p.want("state or frags", p.take("state", "frags"))
		default:
			return fmt.Errorf("%q does not belong there", line)
		}
	}
	return p.err
}

// object reads an address and a comparison of ports.
func (p *ipfParser) object() {
	p.take("!")
	p.next()
	if p.take("port") {
		op := p.next()
		p.want("a comparison", slices.Contains([]string{"=", "!=", "<", ">", "<=", ">=", "eq", "ne", "lt", "gt"}, op))
		p.next()
	}
}

// TestIPF holds a parser of our own against rules of others, and our rules against it.
func TestIPF(t *testing.T) {
	for _, good := range []string{
		"block in log quick all with short", "block in log on ppp0 all head 100", "block return-rst in log proto tcp from any to any flags S/SA group 100",
		"block return-icmp(net-unr) in proto udp all group 100", "pass in quick proto udp from any to any port = 53 keep state group 202",
		"pass in on le0 dup-to le1:10.3.3.3 proto tcp all flags S/SA", "pass in on ppp0 fastroute proto udp all",
	} {
		if err := parseIPF(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"pass", "pass all", "permit in all", "pass in", "pass in proto tcp", "pass in from any", "pass in all 8080", "pass in from any to any port 80", "pass in all keep it"} {
		if err := parseIPF(bad); err == nil {
			t.Errorf("%s: taken", bad)
		}
	}
	shared := os.Getenv("ISC_SHARED") // the rules above are of these files
	for _, name := range []string{"BASIC_1.FW", "BASIC_2.FW", "example.1", "example.13", "server", "tcpstate"} {
		data, err := os.ReadFile(filepath.Join(shared, "data/illumos/etc/ipf/examples", name))
		if shared == "" {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines(string(data)) {
			if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) != "" {
				if err := parseIPF(line); err != nil {
					t.Errorf("%s: %s: %v", name, line, err)
				}
			}
		}
	}
	for _, l := range []*Layout{webLayout(Illumos), webLayout(Linux), {OS: Illumos}} {
		files, err := l.NetworkFiles()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"ipf.conf", "ipf6.conf"} {
			rules := 0
			for _, line := range lines(files[name]) {
				if strings.HasPrefix(line, "#") {
					continue
				}
				rules++
				if err := parseIPF(line); err != nil {
					t.Errorf("%s: %s: %v", name, line, err)
				}
			}
			if rules < 4 || !strings.Contains(files[name], "block in log all\nblock out log all\n") {
				t.Errorf("%s does not deny by default:\n%s", name, files[name])
			}
		}
	}
}
