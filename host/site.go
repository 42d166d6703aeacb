package host

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// Site is what makes an instance of an image this one: it is written over the golden content by
// clone and again by reset, and check expects it.
type Site struct {
	Hostname string            `json:"hostname,omitempty"` // default: the instance's name
	Values   map[string]string `json:"values,omitempty"`   // further ones, for the platform: net, memory …
}

// A SiteFile is a file that site values wrote.
type SiteFile struct {
	Path   string `json:"path"` // relative to the root
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// maxHosts bounds a hosts file that is edited, in bytes.
const maxHosts = 1 << 20

// files returns the content of the files that say the site values to the system in the image.
// An image without /etc has nobody to say it to.
func (s Site) files(g *Golden, instance string) (map[string][]byte, error) {
	host := s.Hostname
	if host == "" {
		host = instance
	}
	if err := checkHostname(host); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	isDir := func(name string) bool {
		e := g.Content.Lookup(name)
		return e != nil && e.IsDir()
	}
	if !isDir("etc") {
		if s.Hostname != "" {
			return nil, fmt.Errorf("hostname %q: the image has no directory /etc to say it in", host)
		}
		return files, nil
	}
	switch g.Config.OS {
	case "linux":
		files["etc/hostname"] = []byte(host + "\n")
		return files, nil
	case "illumos":
		files["etc/nodename"] = []byte(host + "\n")
	case "solaris":
		// The directory for profiles of one machine is of 11.4; before, all of them stood in the other.
		i := slices.IndexFunc(profileDirs, isDir)
		if i < 0 && s.Hostname != "" {
			return nil, fmt.Errorf("hostname %q: the image has neither of the directories %q to say it in", host, profileDirs)
		}
		if i >= 0 {
			files[profileDirs[i]+"/isc-instance.xml"] = fmt.Appendf(nil, nodename, host)
		}
	}
	if isDir("etc/inet") {
		old, err := g.read("etc/inet/hosts")
		if err != nil {
			return nil, err
		}
		files["etc/inet/hosts"] = addHost(old, host)
	}
	return files, nil
}

// profileDirs are where SMF of Solaris looks for profiles, that of the node first.
var profileDirs = []string{"etc/svc/profile/node", "etc/svc/profile/site"}

// nodename is the profile that names an instance of Solaris, which does not read /etc/nodename. A host name
// that was checked needs no escapes.
const nodename = `<?xml version='1.0'?>
<!DOCTYPE service_bundle SYSTEM '/usr/share/lib/xml/dtd/service_bundle.dtd.1'>
<!-- Made by iscadm. -->
<service_bundle type='profile' name='isc-instance'>
  <service name='system/identity' type='service' version='1'>
    <instance name='node' enabled='true'>
      <property_group name='config' type='application'>
        <propval name='nodename' type='astring' value='%s'/>
      </property_group>
    </instance>
  </service>
</service_bundle>
`

// read returns the golden content of a small file, nothing if there is none.
func (g *Golden) read(name string) ([]byte, error) {
	e := g.Content.Lookup(name)
	if e == nil || !e.IsRegular() {
		return nil, nil
	}
	if e.Size > maxHosts {
		return nil, fmt.Errorf("%q: %d bytes are too many to edit", name, e.Size)
	}
	f, _, err := g.store.open(e.Digest)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxHosts))
}

// addHost makes host a name of the loopback addresses, as hosts(5) of illumos wants it.
func addHost(hosts []byte, host string) []byte {
	var b strings.Builder
	found := map[string]bool{}
	for line := range strings.Lines(string(hosts)) {
		line = strings.TrimSuffix(line, "\n")
		text, comment, _ := strings.Cut(line, "#")
		f := strings.Fields(text)
		if len(f) > 0 && (f[0] == "127.0.0.1" || f[0] == "::1") && !found[f[0]] {
			found[f[0]] = true
			if !slices.Contains(f[1:], host) {
				line = strings.TrimRight(text, " \t") + " " + host
				if comment != "" {
					line += " #" + comment
				}
			}
		}
		b.WriteString(line + "\n")
	}
	for _, addr := range []string{"::1", "127.0.0.1"} {
		if !found[addr] {
			b.WriteString(addr + "\tlocalhost " + host + "\n")
		}
	}
	return []byte(b.String())
}

// checkHostname accepts the names of RFC 1123, 2.1.
func checkHostname(host string) error {
	ok := host != "" && len(host) <= 255
	for label := range strings.SplitSeq(host, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		for _, c := range []byte(label) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-')
		}
	}
	if !ok {
		return fmt.Errorf("hostname %q: use letters, digits and \"-\" in labels of up to 63, with \".\" between them", host)
	}
	return nil
}

// siteEntry returns the metadata of a site file in the place of e, which may be nil: that of the
// image, if it has the file.
func siteEntry(e *image.Entry, name string) *image.Entry {
	if e != nil && e.IsRegular() {
		return e
	}
	return &image.Entry{Name: name, Mode: 0o644, ModTime: time.Unix(0, 0)}
}

// record lists site files for the state, sorted.
func record(files map[string][]byte) []SiteFile {
	var list []SiteFile
	for name, data := range files {
		sum := sha256.Sum256(data)
		list = append(list, SiteFile{name, "sha256:" + hex.EncodeToString(sum[:]), int64(len(data))})
	}
	slices.SortFunc(list, func(a, b SiteFile) int { return image.Compare(a.Path, b.Path) })
	return list
}
