package ovf

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Report is what [Check] found.
type Report struct {
	Archive  bool         `json:"archive"` // an OVA, not a descriptor beside its files
	Disks    []DiskReport `json:"disks"`
	Manifest []string     `json:"manifest,omitempty"` // the algorithms of the manifest
	Signer   *Signer      `json:"signer,omitempty"`
	Findings []Finding    `json:"findings,omitempty"`
	// More tells that findings were left out, of which there were too many.
	More bool `json:"more,omitempty"`

	Envelope *Envelope `json:"-"` // nil if the descriptor cannot be parsed

	sealed   bool            // there is a manifest or certificate
	verified map[string]bool // files whose digest of a known algorithm a manifest has
}

// A DiskReport describes a disk that was read whole and found in order.
type DiskReport struct {
	File      string `json:"file"`
	Kind      string `json:"kind"`      // createType of the VMDK
	Stream    bool   `json:"stream"`    // its tables stand at the end
	Capacity  int64  `json:"capacity"`  // bytes
	Populated int64  `json:"populated"` // bytes of stored grains
	Size      int64  `json:"size"`      // bytes of the file
}

// A Signer is who signed, by the certificate in the package, which nobody vouched for here.
type Signer struct {
	Subject  string    `json:"subject"`
	NotAfter time.Time `json:"notAfter"`
}

// Refused tells whether an importer refuses the package, by what was found.
func (r *Report) Refused(who Importer) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool {
		return f.Refused && (f.Importer == who || f.Importer == Everyone)
	})
}

// Damaged tells whether something is not what manifest, certificate or a disk's own structure say.
func (r *Report) Damaged() bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Damage })
}

// Check reads a package, an OVA or a descriptor with its files beside it, and tells what is wrong
// with it: descriptor, manifest, certificate, the structure and every grain of each VMDK. It fails
// only if name cannot be read or is neither; everything else is a finding. Memory grows with the
// disks by 16 bytes for each stored grain. Nothing outside the package is read, whatever the
// descriptor refers to.
func Check(ctx context.Context, name string) (*Report, error) {
	p, err := openContents(name)
	if err != nil {
		return nil, fmt.Errorf("check %q: %w", name, err)
	}
	defer p.close()
	c := &checker{p: p, report: &Report{Archive: p.archive, Disks: []DiskReport{}}}
	if err := c.run(ctx); err != nil {
		return nil, fmt.Errorf("check %q: %w", name, err)
	}
	c.report.Findings, c.report.More = c.findings, c.more
	return c.report, nil
}

type checker struct {
	linter
	p      *contents
	report *Report
	sums   map[string][]entry // of the manifests, by name
}

func (c *checker) run(ctx context.Context) error {
	for _, f := range c.p.findings {
		c.note(f)
	}
	data, err := c.p.read(c.p.descriptor, MaxDescriptor)
	if err != nil {
		return err
	}
	c.file = c.p.descriptor
	e, err := Parse(data)
	if err != nil {
		c.refuse(Everyone, 0, "%s", err)
		e = &Envelope{root: new(node)} // the rest of the package is checked still
	} else {
		c.report.Envelope = e
		c.descriptor(e)
	}
	c.file = ""
	if err := c.manifests(e); err != nil {
		return err
	}
	c.order(e)
	return c.files(ctx, e)
}

// base is the name of the descriptor without its suffix, which those of manifest and certificate
// have too.
func (c *checker) base() string { return stem(c.p.descriptor) }

func stem(name string) string { return strings.TrimSuffix(name, path.Ext(name)) }

// An entry is a line of a manifest, with those who compare it.
type entry struct {
	Sum
	readers []Importer
}

var (
	// strictSum is how the specification writes a line of a manifest, and every importer reads it.
	strictSum = regexp.MustCompile(`^[A-Z0-9]+\([^()]+\)= [0-9a-f]+$`)
	// virtv2vSum is what virt-v2v reads. It compares digits as text, and writes lower case itself.
	virtv2vSum = regexp.MustCompile(`^(?:SHA1|SHA256)\(.*\)= ([0-9a-fA-F]+)$`)
)

// manifests checks all manifests and certificates in the package, whoever looks at them: what does
// not fit is damage, but only those who look refuse it.
func (c *checker) manifests(e *Envelope) error {
	c.sums, c.report.verified = map[string][]entry{}, map[string]bool{}
	found, certs := c.p.beside(".mf"), c.p.beside(".cert")
	c.report.sealed = len(found)+len(certs) > 0
	for _, name := range found {
		data, err := c.p.read(name, maxManifest)
		if err != nil {
			return err
		}
		c.file = name
		c.manifest(name, data)
		c.file = ""
	}
	if len(found) == 0 {
		c.warn(Everyone, 0, "no manifest: nobody notices damage")
	} else {
		names := []string{c.p.descriptor}
		for _, f := range e.Files {
			names = append(names, f.Href)
		}
		for _, n := range names {
			if len(c.sums[n]) == 0 && c.p.has(n) {
				c.warn(Everyone, 0, "%q is not in the manifest", n)
			}
		}
	}
	for _, cert := range certs {
		i := slices.IndexFunc(found, func(mf string) bool { return strings.EqualFold(stem(mf), stem(cert)) })
		if i < 0 {
			c.unsealed(cert, 0, "%q without a manifest", cert)
			continue
		}
		if err := c.certificate(cert, found[i]); err != nil {
			return err
		}
		c.file = ""
	}
	return nil
}

// unsealed tells of damage to a manifest or certificate, for which those refuse the package who look
// for one of this name, VirtualBox in any case. virt-v2v warns of lines that it cannot read.
func (c *checker) unsealed(name string, line int, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	c.note(Finding{Importer: Everyone, Damage: true, File: c.file, Line: line, Message: message})
	switch {
	case name == c.base()+strings.ToLower(path.Ext(name)):
		c.refuse(ESXi, line, "%s", message)
		fallthrough
	case strings.EqualFold(stem(name), c.base()):
		c.refuse(VirtualBox7, line, "%s", message)
	}
}

// manifest collects what one manifest says.
func (c *checker) manifest(name string, data []byte) {
	if name != c.base()+".mf" {
		c.warn(Everyone, 0, "it is not called as the descriptor, %q: some do not look at it", c.base()+".mf")
	}
	line, sums := 0, 0
	for text := range strings.Lines(strings.TrimPrefix(string(data), "\ufeff")) {
		line++
		text = strings.TrimRight(text, "\r\n")
		if strings.TrimSpace(text) == "" {
			continue
		}
		s, err := parseSum(strings.TrimSpace(text))
		if sums++; err == nil && sums > maxSums {
			err = fmt.Errorf("more than %d lines", maxSums)
		}
		if err != nil {
			c.unsealed(name, line, "%s", err)
			if sums > maxSums {
				return
			}
			continue
		}
		c.sum(name, line, text, s)
	}
}

// sum takes one line of a manifest.
func (c *checker) sum(name string, line int, text string, s Sum) {
	_, _, known := algorithm(s.Algorithm)
	if !slices.Contains(c.report.Manifest, s.Algorithm) {
		c.report.Manifest = append(c.report.Manifest, s.Algorithm)
		c.digest(s.Algorithm, known)
	}
	if slices.ContainsFunc(c.sums[s.Name], func(o entry) bool { return strings.EqualFold(o.Algorithm, s.Algorithm) }) {
		c.warn(Everyone, line, "%s of %q: twice", s.Algorithm, s.Name)
	}
	there := c.p.has(s.Name)
	if !there {
		c.refuse(ESXi, line, "%q is not in the package", s.Name)
		c.warn(Everyone, line, "%q is not in the package", s.Name)
	}
	open := strings.IndexByte(text, '(')
	switch {
	case strictSum.MatchString(text):
	case open > 0 && text[open-1] == ' ':
		c.refuse(ESXi, line, "a space before the parenthesis")
	default:
		c.warn(Everyone, line, "not exactly ALGORITHM(name)= and lower-case digits: some do not read it")
	}
	var readers []Importer
	if name == c.base()+".mf" {
		readers = append(readers, ESXi)
	}
	if slices.Contains(vboxSums, s.Algorithm) && strings.EqualFold(name, c.base()+".mf") {
		readers = append(readers, VirtualBox7)
	}
	if m := virtv2vSum.FindStringSubmatch(text); m != nil && path.Ext(name) == ".mf" {
		readers = append(readers, VirtV2V)
		if there && m[1] != strings.ToLower(m[1]) {
			c.refuse(VirtV2V, line, "upper-case digits never match")
		}
	}
	c.sums[s.Name] = append(c.sums[s.Name], entry{s, readers})
}

// vboxSums are the algorithms that VirtualBox knows, by exactly these names (manifest2.cpp).
var vboxSums = []string{"MD5", "SHA1", "SHA256", "SHA512"}

// digest tells who does not take an algorithm, or does not look.
func (c *checker) digest(name string, known bool) {
	switch {
	case !known:
		c.warn(Everyone, 0, "digest %q is not verified", name)
		return
	case !slices.Contains(vboxSums, name):
		c.warn(VirtualBox7, 0, "digest %q is not verified", name)
	}
	switch strings.ToUpper(name) {
	case "SHA1":
		c.refuse(ESXi, 0, "SHA1: vSphere 6.5 and later refuse it")
	case "MD5", "SHA512":
		c.warn(VirtV2V, 0, "%s is not verified", name)
	}
}

func (c *checker) certificate(name, manifest string) error {
	data, err := c.p.read(manifest, maxManifest)
	if err != nil {
		return err
	}
	raw, err := c.p.read(name, maxManifest)
	if err != nil {
		return err
	}
	c.file = name
	cert, err := ParseCertificate(raw)
	if err == nil {
		c.report.Signer = &Signer{cert.Chain[0].Subject.String(), cert.Chain[0].NotAfter}
		if cert.Name != manifest {
			c.refuse(VirtualBox7, 0, "signs %q, not %q", cert.Name, manifest)
		}
		err = cert.Verify(data)
	}
	if err != nil {
		c.unsealed(name, 0, "%s", err)
	}
	return nil
}

// order checks the sequence of an archive: descriptor, manifest, certificate, then the files in
// the order of References (DSP0243 5.3), which those who read it as a stream rely on.
func (c *checker) order(e *Envelope) {
	if !c.p.archive {
		return
	}
	want := []string{c.p.descriptor, c.base() + ".mf", c.base() + ".cert"}
	for _, f := range e.Files {
		want = append(want, f.Href)
	}
	if c.p.names[0] != c.p.descriptor {
		c.refuse(VirtualBox7, 0, "the descriptor is not the first file of the archive")
	}
	// Which looks for the suffix, in this case, and wants one.
	switch n := len(slices.DeleteFunc(slices.Clone(c.p.names), func(n string) bool { return path.Ext(n) != ".ovf" })); {
	case n == 0:
		c.refuse(VirtV2V, 0, "no name in the archive ends in .ovf")
	case n > 1:
		c.refuse(VirtV2V, 0, "%d descriptors in the archive: only one is read", n)
	}
	last := -1
	for _, n := range c.p.names {
		at := slices.Index(want, n)
		if at < 0 {
			c.warn(ESXi, 0, "%q is not referred to: strict importers refuse such files", n)
			continue
		}
		if at < last {
			c.warn(Everyone, 0, "%q: the files are not in the order descriptor, manifest, certificate, References", n)
		}
		last = max(last, at)
	}
}
