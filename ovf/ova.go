package ovf

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxMember is the largest file, in bytes, in a ustar archive: eleven octal digits.
const MaxMember = 1<<33 - 1

// Options are the choices of [Appliance.Package] beside the machine.
type Options struct {
	Manifest     Digest              // SHA256 if empty
	Key          crypto.Signer       // RSA; signs the manifest if not nil
	Certificates []*x509.Certificate // of Key, its own first
	ModTime      time.Time           // of the files in the archive, whole seconds; 1970 if zero
}

// Check reports whether an appliance can be signed so. Package does that too, but only when there are disks.
func (o *Options) Check() error {
	if o.Key == nil {
		return nil
	}
	if o.Manifest == None {
		return fmt.Errorf("what is signed is the manifest: there is none")
	}
	if len(o.Certificates) == 0 {
		return fmt.Errorf("signing key without a certificate")
	}
	pub, ok := o.Key.Public().(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("signing key is a %T: importers verify RSA only", o.Key.Public())
	}
	if first := o.Certificates[0]; !pub.Equal(first.PublicKey) {
		return fmt.Errorf("certificate of %q is not that of the signing key", first.Subject)
	}
	return nil
}

// A Package is the files of an appliance in the order of an OVA: descriptor, manifest,
// certificate, disks. They may as well be written to a folder one by one.
type Package struct {
	Members []Member
	modTime time.Time
}

// A Member is one file of a package.
type Member struct {
	Name    string
	Size    int64 // bytes
	Content io.ReaderAt
	sha256  *[sha256.Size]byte // that it must have, if known
}

// Package makes descriptor, manifest and certificate. The disks are read only if the manifest's
// digest is another than SHA-256, which a [VMDK] brings along.
func (a *Appliance) Package(ctx context.Context, opt Options) (*Package, error) {
	p, err := a.pack(ctx, opt)
	if err != nil {
		return nil, fmt.Errorf("appliance %q: %w", a.Name, err)
	}
	return p, nil
}

func (a *Appliance) pack(ctx context.Context, opt Options) (*Package, error) {
	a = a.withDefaults()
	if errs := a.problems(); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	or(&opt.Manifest, SHA256)
	if err := opt.Check(); err != nil {
		return nil, err
	}
	p := &Package{modTime: opt.ModTime.UTC().Truncate(time.Second)}
	if opt.ModTime.IsZero() {
		p.modTime = time.Unix(0, 0).UTC()
	}
	inline := func(name string, b []byte) Member {
		sum := sha256.Sum256(b)
		return Member{name, int64(len(b)), bytes.NewReader(b), &sum}
	}
	p.Members = append(p.Members, inline(a.Name+".ovf", a.descriptor()))
	for i, d := range a.Disks {
		p.Members = append(p.Members, Member{a.diskFile(i), d.Size, d.Content, &d.SHA256})
	}
	if opt.Manifest == None {
		return p, nil
	}
	manifest, err := p.manifest(ctx, opt.Manifest)
	if err != nil {
		return nil, err
	}
	head := []Member{p.Members[0], inline(a.Name+".mf", manifest)}
	if opt.Key != nil {
		cert, err := sign(manifest, a.Name+".mf", opt.Key, opt.Certificates)
		if err != nil {
			return nil, err
		}
		head = append(head, inline(a.Name+".cert", cert))
	}
	p.Members = append(head, p.Members[1:]...)
	return p, nil
}

// manifest returns the digests of all members: exactly "SHA256(name)= digits" and a line feed,
// which is what every importer reads.
func (p *Package) manifest(ctx context.Context, with Digest) ([]byte, error) {
	for _, d := range digests {
		if d.digest != with {
			continue
		}
		var b bytes.Buffer
		for _, m := range p.Members {
			sum := m.sha256[:]
			if with != SHA256 {
				h := d.new()
				if err := copyAll(ctx, h, m); err != nil {
					return nil, err
				}
				sum = h.Sum(nil)
			}
			fmt.Fprintf(&b, "%s\n", Sum{d.name, m.Name, sum})
		}
		return b.Bytes(), nil
	}
	return nil, fmt.Errorf("manifest %q is not known", with)
}

// WriteOVA writes the package as a ustar archive without extensions, with nothing in it that
// depends on the machine. It fails if a disk's bytes are not those the manifest tells.
func (p *Package) WriteOVA(ctx context.Context, w io.Writer) error {
	t := tar.NewWriter(w)
	for _, m := range p.Members {
		if err := t.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: m.Name, Size: m.Size, Mode: 0o644,
			ModTime: p.modTime, Format: tar.FormatUSTAR,
		}); err != nil {
			return fmt.Errorf("write OVA: %q: %w", m.Name, err)
		}
		h := sha256.New()
		if err := copyAll(ctx, io.MultiWriter(t, h), m); err != nil {
			return fmt.Errorf("write OVA: %w", err)
		}
		if m.sha256 != nil && [sha256.Size]byte(h.Sum(nil)) != *m.sha256 {
			return fmt.Errorf("write OVA: %q: its content is not what the manifest tells", m.Name)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write OVA: %w", err)
	}
	return nil
}

// copyAll copies a member and looks at ctx now and then.
func copyAll(ctx context.Context, w io.Writer, m Member) error {
	buf := make([]byte, 1<<20)
	for off := int64(0); off < m.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := buf[:min(int64(len(buf)), m.Size-off)]
		if err := readFull(m.Content, b, off, fmt.Sprintf("%q", m.Name)); err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("%q: %w", m.Name, err)
		}
		off += int64(len(b))
	}
	return nil
}
