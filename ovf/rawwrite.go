package ovf

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// WriteRaw writes the bytes of the disk, and zeros up to size.
func WriteRaw(ctx context.Context, w io.Writer, src Source, size int64) error {
	if err := writeRaw(ctx, w, src, size); err != nil {
		return fmt.Errorf("write raw disk: %w", err)
	}
	return nil
}

func writeRaw(ctx context.Context, w io.Writer, src Source, size int64) error {
	if err := src.check(); err != nil {
		return err
	}
	extents, _, err := src.stored()
	if err != nil {
		return err
	}
	if size < src.Size {
		return fmt.Errorf("disk of %d bytes does not fit in %d", src.Size, size)
	}
	buf := make([]byte, 1<<20)
	at := int64(0)
	zero := func(to int64) error {
		clear(buf)
		for at < to {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := w.Write(buf[:min(int64(len(buf)), to-at)])
			at += int64(n)
			if err != nil {
				return err
			}
		}
		return nil
	}
	for _, e := range extents {
		if err := zero(e.Offset); err != nil {
			return err
		}
		for end := e.Offset + e.Length; at < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := buf[:min(int64(len(buf)), end-at)]
			if err := readFull(src.Content, b, at, "read disk"); err != nil {
				return err
			}
			n, err := w.Write(b)
			at += int64(n)
			if err != nil {
				return err
			}
		}
	}
	return zero(size)
}

// The fixed VHD (Microsoft, "Virtual Hard Disk Image Format Specification" 1.0).
const (
	vhdFooter  = 512
	vhdFixed   = 2
	vhdUnit    = 1 << 20    // Azure takes whole MiB only
	maxVHD     = 2040 << 30 // the format's limit
	vhdVersion = 1 << 16
)

// vhdEpoch is where a VHD's time begins: 2000-01-01, in Unix time.
const vhdEpoch = 946684800

// VHDSize returns the size of the disk that [WriteVHD] makes of so many bytes.
func VHDSize(size int64) int64 { return (size + vhdUnit - 1) / vhdUnit * vhdUnit }

// WriteVHD writes the disk as a fixed VHD: its bytes, zeros up to whole MiB as Azure wants it, and a
// footer that holds the time and the identity given.
func WriteVHD(ctx context.Context, w io.Writer, src Source, id [16]byte, at time.Time) error {
	size := VHDSize(src.Size)
	if size > maxVHD {
		return fmt.Errorf("write VHD: disk of %d bytes: more than the 2040 GiB of the format", src.Size)
	}
	if err := writeRaw(ctx, w, src, size); err != nil {
		return fmt.Errorf("write VHD: %w", err)
	}
	if _, err := w.Write(vhd(size, id, at)); err != nil {
		return fmt.Errorf("write VHD: %w", err)
	}
	return nil
}

// vhd returns the footer.
func vhd(size int64, id [16]byte, at time.Time) []byte {
	b := make([]byte, vhdFooter)
	copy(b, vhdMagic)
	put32 := func(at int, v uint32) { binary.BigEndian.PutUint32(b[at:], v) }
	put64 := func(at int, v uint64) { binary.BigEndian.PutUint64(b[at:], v) }
	put32(8, 2) // reserved, always set
	put32(12, vhdVersion)
	put64(16, 1<<64-1) // no further header
	put32(24, uint32(max(0, at.Unix()-vhdEpoch)))
	// Hyper-V's own mark. Readers take the size from the geometry, which is coarser, for others'.
	copy(b[28:], "win ")
	put32(32, 10<<16)
	copy(b[36:], "Wi2k")
	put64(40, uint64(size))
	put64(48, uint64(size))
	cylinders, heads, sectors := vhdGeometry(size)
	binary.BigEndian.PutUint16(b[56:], cylinders)
	b[58], b[59] = heads, sectors
	put32(60, vhdFixed)
	copy(b[68:], id[:])
	var sum uint32
	for _, c := range b {
		sum += uint32(c)
	}
	put32(64, ^sum)
	return b
}

// vhdGeometry is the algorithm of the specification's appendix.
func vhdGeometry(size int64) (cylinders uint16, heads, sectors uint8) {
	total := min(size/sectorSize, 65535*16*255)
	var perTrack, h, tracks int64
	if total >= 65535*16*63 {
		perTrack, h = 255, 16
		tracks = total / perTrack
	} else {
		perTrack = 17
		tracks = total / perTrack
		h = max(4, (tracks+1023)/1024)
		if tracks >= h*1024 || h > 16 {
			perTrack, h = 31, 16
			tracks = total / perTrack
		}
		if tracks >= h*1024 {
			perTrack, h = 63, 16
			tracks = total / perTrack
		}
	}
	return uint16(tracks / h), uint8(h), uint8(perTrack)
}

// gcpUnit is what Google's Compute Engine wants the size of a disk to be a multiple of.
const gcpUnit = 1 << 30

// WriteGCP writes the disk as the archive that Google's Compute Engine imports, before it is
// compressed with gzip: GNU's old tar with the one file disk.raw, of whole GiB.
func WriteGCP(ctx context.Context, w io.Writer, src Source, at time.Time) error {
	size := (src.Size + gcpUnit - 1) / gcpUnit * gcpUnit
	t := tar.NewWriter(w)
	err := t.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: "disk.raw", Size: size, Mode: 0o644, ModTime: at.UTC().Truncate(time.Second), Format: tar.FormatGNU,
	})
	if err == nil {
		err = writeRaw(ctx, t, src, size)
	}
	if err == nil {
		err = t.Close()
	}
	if err != nil {
		return fmt.Errorf("write archive for GCP: %w", err)
	}
	return nil
}
