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
	sums   map[string][]Sum // of the manifest, by name
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
	if err := c.manifest(e); err != nil {
		return err
	}
	c.order(e)
	return c.files(ctx, e)
}

// base is the name of the descriptor without its suffix, which those of manifest and certificate
// have too.
func (c *checker) base() string {
	return strings.TrimSuffix(c.p.descriptor, path.Ext(c.p.descriptor))
}

// strictSum is how the specification writes a line of a manifest, and every importer reads it.
var strictSum = regexp.MustCompile(`^[A-Z0-9]+\([^()]+\)= [0-9a-f]+$`)

func (c *checker) manifest(e *Envelope) error {
	name := c.base() + ".mf"
	cert := c.base() + ".cert"
	if !c.p.has(name) {
		if c.p.has(cert) {
			c.refuse(VirtualBox7, 0, "%q without a manifest", cert)
			c.refuse(ESXi, 0, "%q without a manifest", cert)
		}
		c.warn(Everyone, 0, "no manifest: nobody notices damage")
		return nil
	}
	data, err := c.p.read(name, maxManifest)
	if err != nil {
		return err
	}
	c.file = name
	defer func() { c.file = "" }()
	sums, err := ParseManifest(data)
	if err != nil {
		c.refuse(Everyone, 0, "%s", err)
		return nil
	}
	c.lines(data)
	c.sums = map[string][]Sum{}
	for _, s := range sums {
		_, _, known := algorithm(s.Algorithm)
		if slices.ContainsFunc(c.sums[s.Name], func(o Sum) bool { return strings.EqualFold(o.Algorithm, s.Algorithm) }) {
			c.refuse(Everyone, 0, "%s of %q: twice", s.Algorithm, s.Name)
			continue
		}
		c.sums[s.Name] = append(c.sums[s.Name], s)
		if !slices.Contains(c.report.Manifest, s.Algorithm) {
			c.report.Manifest = append(c.report.Manifest, s.Algorithm)
			c.digest(s.Algorithm, known)
		}
		if !c.p.has(s.Name) {
			c.refuse(VirtualBox7, 0, "%q is not in the package", s.Name)
			c.refuse(ESXi, 0, "%q is not in the package", s.Name)
		}
	}
	names := []string{c.p.descriptor}
	for _, f := range e.Files {
		names = append(names, f.Href)
	}
	for _, n := range names {
		if len(c.sums[n]) == 0 && c.p.has(n) {
			c.warn(Everyone, 0, "%q is not in the manifest", n)
		}
	}
	if c.p.has(cert) {
		return c.certificate(cert, name, data)
	}
	return nil
}

// lines tells of lines that some importers cannot read.
func (c *checker) lines(data []byte) {
	n := 0
	for text := range strings.Lines(string(data)) {
		n++
		line := strings.TrimSuffix(text, "\n")
		switch open := strings.IndexByte(line, '('); {
		case strings.TrimSpace(line) == "" || strictSum.MatchString(line):
		case open > 0 && line[open-1] == ' ':
			c.refuse(ESXi, n, "a space before the parenthesis")
		default:
			c.warn(Everyone, n, "not exactly ALGORITHM(name)= and lower-case digits: some do not read it")
		}
	}
}

// digest tells who does not take an algorithm.
func (c *checker) digest(name string, known bool) {
	switch {
	case !known:
		c.warn(Everyone, 0, "digest %q is not verified", name)
	case strings.EqualFold(name, "SHA1"):
		c.refuse(ESXi, 0, "SHA1: vSphere 6.5 and later refuse it")
	case strings.EqualFold(name, "SHA512"):
		c.warn(VirtV2V, 0, "SHA512 is not verified")
	}
}

func (c *checker) certificate(name, manifest string, data []byte) error {
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
		c.damage(false, "%s", err)
		for _, who := range []Importer{VirtualBox7, ESXi} { // the others do not look
			c.refuse(who, 0, "%s", err)
		}
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
