package ovf

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"hash"
	"io"
	"strings"
)

// files checks the content of all files.
func (c *checker) files(ctx context.Context, e *Envelope) error {
	done := map[string]bool{}
	for i, f := range e.Files {
		if f.Href == "" || done[f.Href] {
			continue
		}
		done[f.Href] = true
		c.file = f.Href
		var disk *DiskRef
		for d := range e.Disks {
			if e.Disks[d].FileRef == f.ID {
				disk = &e.Disks[d]
			}
		}
		if err := c.referred(ctx, &e.Files[i], disk); err != nil {
			return err
		}
	}
	for _, name := range append([]string{c.p.descriptor}, c.p.names...) { // and what nothing refers to
		if done[name] || len(c.sums[name]) == 0 || !c.p.has(name) {
			continue
		}
		done[name] = true
		c.file = name
		m, err := c.p.open(name)
		if err != nil {
			return err
		}
		if err := c.verify(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// referred checks one file of References.
func (c *checker) referred(ctx context.Context, f *FileRef, disk *DiskRef) error {
	switch {
	case strings.HasPrefix(f.Href, "http://") || strings.HasPrefix(f.Href, "https://"):
		for _, who := range []Importer{VirtualBox7, VirtV2V, ProxmoxVE} {
			c.refuse(who, 0, "it is somewhere else: only files of the package are read")
		}
		c.warn(ESXi, 0, "it is somewhere else, and was not checked")
		return nil
	case !localName(f.Href):
		c.refuse(Everyone, 0, "it leaves the package, and was not read")
		return nil
	case !c.p.has(f.Href) && f.Chunked:
		c.warn(Everyone, 0, "it is in chunks, which were not checked")
		return nil
	case !c.p.has(f.Href):
		if other := c.p.similar(f.Href); other != "" {
			c.refuse(Everyone, 0, "it is not in the package, which has %q", other)
		} else {
			c.refuse(Everyone, 0, "it is not in the package")
		}
		return nil
	}
	m, err := c.p.open(f.Href)
	if err != nil {
		return err
	}
	if f.Size > 0 && f.Size != m.Size {
		c.refuse(ESXi, 0, "it has %d bytes, the descriptor says %d", m.Size, f.Size)
		c.warn(Everyone, 0, "it has %d bytes, the descriptor says %d", m.Size, f.Size)
	}
	switch {
	case disk == nil:
	case f.Compression == "gzip":
		c.warn(Everyone, 0, "the disk is compressed with gzip once more, and was not checked")
	case !strings.Contains(strings.ToLower(disk.Format), "vmdk"):
		c.refuse(ESXi, 0, "format %q: only VMDK is read", disk.Format)
	default:
		return c.disk(ctx, m, disk)
	}
	return c.verify(ctx, m)
}

// verify compares a file with the manifest.
func (c *checker) verify(ctx context.Context, m Member) error {
	s := c.hashes(m.Name)
	if err := copyAll(ctx, s, m); err != nil {
		return err
	}
	c.compare(s)
	return nil
}

// A summing hashes a file with all algorithms that the manifests have for it.
type summing struct {
	io.Writer
	want []entry
	have map[crypto.Hash]hash.Hash
}

func (c *checker) hashes(name string) *summing {
	s := &summing{have: map[crypto.Hash]hash.Hash{}}
	var all []io.Writer
	for _, sum := range c.sums[name] {
		kind, fresh, ok := algorithm(sum.Algorithm)
		if !ok {
			continue
		}
		s.want = append(s.want, sum)
		if s.have[kind] == nil {
			s.have[kind] = fresh()
			all = append(all, s.have[kind])
		}
	}
	s.Writer = io.MultiWriter(all...)
	return s
}

// compare tells of digests that differ. Proxmox does not look at manifests.
func (c *checker) compare(s *summing) {
	for _, sum := range s.want {
		c.report.verified[sum.Name] = true
		kind, _, _ := algorithm(sum.Algorithm)
		got := s.have[kind].Sum(nil)
		if bytes.Equal(got, sum.Value) {
			continue
		}
		c.damage(false, "%s is %x, the manifest says %x: the file was changed", sum.Algorithm, got, sum.Value)
		for _, who := range sum.readers {
			c.refuse(who, 0, "%s is not that of the manifest", sum.Algorithm)
		}
	}
}

// disk reads a VMDK whole: in one forward pass that hashes it, too, if it is made for that.
func (c *checker) disk(ctx context.Context, m Member, ref *DiskRef) error {
	v, err := newReader(m.Content, m.Size)
	if err == nil {
		err = v.described()
	}
	if err != nil {
		c.damage(true, "no sound VMDK: %s", err)
		return c.verify(ctx, m)
	}
	report := DiskReport{File: m.Name, Kind: v.CreateType, Stream: v.Stream, Capacity: v.Capacity, Size: m.Size}
	c.capacity(v, ref)
	if v.Compressed {
		if v.CreateType != "streamOptimized" {
			c.refuse(VirtualBox7, 0, "its descriptor says %q, not \"streamOptimized\": grains are not looked for where they are", v.CreateType)
		}
		if !v.Stream {
			c.warn(ESXi, 0, "its tables stand in front, as qemu-img writes them: uploads of such disks have failed")
		}
		sums := c.hashes(m.Name)
		s, err := c.stream(ctx, v, io.TeeReader(io.NewSectionReader(m.Content, 0, m.Size), sums))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			c.compare(sums)
			report.Populated = s.Populated
			if n, err := v.check(ctx, false); err != nil {
				c.damage(true, "no sound VMDK: %s", err)
				return ctx.Err()
			} else if n != s.Populated {
				c.damage(true, "no sound VMDK: %d bytes of grains are stored, its tables have %d", s.Populated, n)
				return nil
			}
			c.report.Disks = append(c.report.Disks, report)
			return nil
		}
		c.refuse(VirtualBox7, 0, "it cannot be read forward: %s", err)
	} else {
		c.refuse(ESXi, 0, "%s: only stream-optimized disks are taken (\"sparse VMDK version too old\")", kind(v))
		if c.p.archive {
			c.refuse(VirtualBox7, 0, "%s: it cannot be read forward from an archive", kind(v))
		}
	}
	if report.Populated, err = v.check(ctx, true); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.damage(true, "no sound VMDK: %s", err)
	} else {
		c.report.Disks = append(c.report.Disks, report)
	}
	return c.verify(ctx, m)
}

func kind(v *Reader) string {
	if v.CreateType == "" {
		return "a sparse disk"
	}
	return fmt.Sprintf("a disk of type %q", v.CreateType)
}

// stream reads a disk forward. Every grain must be where the tables say, or those who use them see
// another disk.
func (c *checker) stream(ctx context.Context, v *Reader, r io.Reader) (*VMDK, error) {
	return readStream(r, func(at, offset int64, _ []byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		grain := uint64(offset / v.Grain)
		place, stored, err := v.place(grain)
		if err == nil && (!stored || int64(place)*sectorSize != at) {
			err = fmt.Errorf("grain %d is at byte %d, which its table does not say", grain, at)
		}
		return err
	})
}

// capacity compares that of a disk with what the descriptor says.
func (c *checker) capacity(v *Reader, ref *DiskRef) {
	switch stream := strings.HasSuffix(ref.Format, "#streamOptimized"); {
	case stream && !v.Compressed:
		c.warn(Everyone, 0, "the descriptor calls it stream-optimized, it is %s", kind(v))
	case !stream && v.Compressed:
		c.warn(ESXi, 0, "the descriptor says %q of a stream-optimized disk", ref.Format)
	}
	// Disks are rounded up to whole grains.
	if ref.Capacity >= 0 && (v.Capacity < ref.Capacity || v.Capacity-ref.Capacity >= v.Grain) {
		c.warn(Everyone, 0, "its capacity is %d bytes, the descriptor says %d", v.Capacity, ref.Capacity)
	}
}
