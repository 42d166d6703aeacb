package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Progress is told what is being done, how far it is and what of, in bytes or entries; total is 0
// where it cannot be known. It is called often and from several goroutines.
type Progress func(stage string, done, total int64)

// Report calls p unless it is nil.
func (p Progress) Report(stage string, done, total int64) {
	if p != nil {
		p(stage, done, total)
	}
}

// Compression is how a stream is compressed: None, Gzip, Bzip2, XZ or Zstd.
type Compression string

// The compressions that are read; None, Gzip and Zstd are also written.
const (
	None  Compression = "none"
	Gzip  Compression = "gzip"
	Bzip2 Compression = "bzip2"
	XZ    Compression = "xz"
	Zstd  Compression = "zstd"
)

// maxWindow bounds what a stream may make its decoder allocate: the default limit of zstd(1),
// and more than any xz(1) preset uses.
const maxWindow = 128 << 20

// Sniff tells from the first bytes of a stream how it is compressed.
func Sniff(head []byte) Compression {
	for _, m := range []struct {
		magic string
		c     Compression
	}{
		{"\x1f\x8b\x08", Gzip},
		{"BZh", Bzip2},
		{"\xfd7zXZ\x00", XZ},
		{"\x28\xb5\x2f\xfd", Zstd},
	} {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			return m.c
		}
	}
	// A zstd stream may begin with a skippable frame (RFC 8878, 3.1.2).
	if len(head) >= 4 && binary.LittleEndian.Uint32(head)&^0xf == 0x184d2a50 {
		return Zstd
	}
	return None
}

// Decompress returns what r holds, whatever it is compressed with, which is found by content.
// Closing the result does not close r.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	head, err := b.Peek(64)
	if err != nil && err != io.EOF {
		return nil, None, err
	}
	c := Sniff(head)
	switch c {
	case Gzip:
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, c, fmt.Errorf("gzip: %w", err)
		}
		return z, c, nil
	case Bzip2:
		return io.NopCloser(bzip2.NewReader(b)), c, nil
	case XZ:
		if d := xzDictionary(head); d > maxWindow {
			return nil, c, fmt.Errorf("xz: dictionary of %d bytes: more than %d", d, maxWindow)
		}
		z, err := xz.NewReader(b)
		if err != nil {
			return nil, c, fmt.Errorf("xz: %w", err)
		}
		return io.NopCloser(z), c, nil
	case Zstd:
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, c, fmt.Errorf("zstd: %w", err)
		}
		return z.IOReadCloser(), c, nil
	}
	return io.NopCloser(b), None, nil
}

// xzDictionary returns the dictionary size that the first block header of an xz stream asks for,
// or 0 if its filters are not LZMA2 alone, which the decoder refuses itself (xz file format 1.1,
// 3.1 and 5.3.1).
func xzDictionary(head []byte) int64 {
	const header = 12
	if len(head) < header+8 {
		return 0
	}
	b := head[header:]
	flags, p := b[1], 2
	for _, bit := range []byte{0x40, 0x80} { // optional sizes, variable-length integers
		if flags&bit != 0 {
			_, n := binary.Uvarint(b[p:])
			if n <= 0 {
				return 0
			}
			p += n
		}
	}
	if p+2 >= len(b) || b[p] != 0x21 || b[p+1] != 1 {
		return 0
	}
	bits := b[p+2] & 0x3f
	return int64(2|bits&1) << (bits/2 + 11)
}

// readAhead runs a reader in a goroutine of its own, so that decompressing goes on while what was
// decompressed is hashed and stored.
type readAhead struct {
	full chan []byte
	free chan []byte
	stop chan struct{}
	once sync.Once
	err  error // of the reader, valid once full is closed
	cur  []byte
	rest []byte
}

func newReadAhead(r io.Reader) *readAhead {
	a := &readAhead{full: make(chan []byte, 4), free: make(chan []byte, 6), stop: make(chan struct{})}
	for range cap(a.free) {
		a.free <- make([]byte, 256<<10)
	}
	go func() {
		defer close(a.full)
		for {
			var buf []byte
			select {
			case buf = <-a.free:
			case <-a.stop:
				return
			}
			n, err := fill(r, buf[:cap(buf)])
			a.err = err
			if n > 0 {
				select {
				case a.full <- buf[:n]:
				case <-a.stop:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return a
}

func (a *readAhead) Read(p []byte) (int, error) {
	if len(a.rest) == 0 {
		if a.cur != nil {
			a.free <- a.cur
			a.cur = nil
		}
		buf, ok := <-a.full
		if !ok {
			return 0, a.err
		}
		a.cur, a.rest = buf, buf
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close stops the goroutine and waits until it no longer uses the reader.
func (a *readAhead) Close() error {
	a.once.Do(func() {
		close(a.stop)
		for range a.full {
		}
	})
	return nil
}

// Frame is the size of the pieces that a Compressor compresses independently, in bytes before
// compression. Smaller ones cost size (3 % at 1 MiB), larger ones memory for every worker.
const Frame = 4 << 20

// A Compressor compresses a stream in independent frames, in parallel. The result is one valid
// stream and depends only on what is written, not on the number of workers or of writes.
type Compressor struct {
	ctx   context.Context
	buf   []byte
	jobs  chan *frameJob
	order chan *frameJob
	ins   chan []byte // to be used again
	outs  chan []byte
	done  chan struct{}
	fail  error // of the goroutine that writes; valid once done is closed
	stop  atomic.Bool
	crc   *gzipTrailer
	w     io.Writer
}

// errStopped ends writing early; Close says why.
var errStopped = errors.New("writing the compressed stream failed")

type frameJob struct {
	in, out []byte
	ready   chan error
}

type gzipTrailer struct{ crc, size uint32 }

// NewCompressor returns a Compressor of kind None, Gzip or Zstd that writes to w. It must be
// closed, also after an error or when ctx is done.
func NewCompressor(ctx context.Context, w io.Writer, c Compression) (io.WriteCloser, error) {
	workers := runtime.GOMAXPROCS(0)
	var encode func() (func(dst, src []byte) ([]byte, error), error)
	z := &Compressor{ctx: ctx, w: w}
	switch c {
	case None:
		return plain{w}, nil
	case Gzip:
		z.crc = new(gzipTrailer)
		encode = newDeflate
	case Zstd:
		encode = newZstd
	default:
		return nil, fmt.Errorf("compression %q cannot be written", c)
	}
	z.jobs = make(chan *frameJob, workers)
	z.order = make(chan *frameJob, workers)
	z.ins = make(chan []byte, workers+2)
	z.outs = make(chan []byte, workers+2)
	z.done = make(chan struct{})
	z.buf = make([]byte, 0, Frame)
	for range workers {
		enc, err := encode()
		if err != nil {
			return nil, err
		}
		go func() {
			for j := range z.jobs {
				var err error
				j.out, err = enc(j.out[:0], j.in)
				j.ready <- err
			}
		}()
	}
	if c == Gzip { // RFC 1952, 2.3: no name, no time, unknown system
		if _, err := w.Write([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}); err != nil {
			z.fail = err
		}
	}
	go z.drain()
	return z, nil
}

// drain writes finished frames in order.
func (z *Compressor) drain() {
	defer close(z.done)
	for j := range z.order {
		err := <-j.ready
		if z.fail == nil && err != nil {
			z.fail = err
		}
		if z.fail == nil {
			_, z.fail = z.w.Write(j.out)
		}
		z.stop.Store(z.fail != nil)
		putBack(z.ins, j.in)
		putBack(z.outs, j.out)
	}
}

func putBack(free chan []byte, b []byte) {
	select {
	case free <- b[:0]:
	default:
	}
}

func take(free chan []byte, size int) []byte {
	select {
	case b := <-free:
		return b
	default:
		return make([]byte, 0, size)
	}
}

// Write buffers p and hands full frames to the workers.
func (z *Compressor) Write(p []byte) (int, error) {
	n := len(p)
	if z.crc != nil {
		z.crc.crc = crc32.Update(z.crc.crc, crc32.IEEETable, p)
		z.crc.size += uint32(n)
	}
	for len(p) > 0 {
		k := min(Frame-len(z.buf), len(p))
		z.buf = append(z.buf, p[:k]...)
		p = p[k:]
		if len(z.buf) == Frame {
			if err := z.submit(); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

func (z *Compressor) submit() error {
	if err := z.ctx.Err(); err != nil {
		return err
	}
	if z.stop.Load() {
		return errStopped
	}
	j := &frameJob{in: z.buf, out: take(z.outs, Frame+Frame/64), ready: make(chan error, 1)}
	z.buf = take(z.ins, Frame)
	z.order <- j
	z.jobs <- j
	return nil
}

// Close compresses what is left, waits for the workers and returns the first error.
func (z *Compressor) Close() error {
	var err error
	if len(z.buf) > 0 {
		err = z.submit()
	}
	close(z.jobs)
	close(z.order)
	<-z.done
	if z.fail != nil {
		err = z.fail
	}
	if err == nil && z.crc != nil {
		tail := []byte{3, 0} // an empty final block with fixed codes
		tail = binary.LittleEndian.AppendUint32(tail, z.crc.crc)
		tail = binary.LittleEndian.AppendUint32(tail, z.crc.size)
		_, err = z.w.Write(tail)
	}
	return err
}

type plain struct{ io.Writer }

func (plain) Close() error { return nil }

// newZstd returns an encoder of whole frames. EncodeAll and a stream give different bytes for the
// same input: only this one is used.
func newZstd() (func(dst, src []byte) ([]byte, error), error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(Frame), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) ([]byte, error) { return e.EncodeAll(src, dst), nil }, nil
}

// newDeflate returns an encoder of pieces that end on a byte boundary (a sync flush), so that
// they can stand one behind the other in one gzip member, which every reader reads to its end.
func newDeflate() (func(dst, src []byte) ([]byte, error), error) {
	var out bytes.Buffer
	f, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) ([]byte, error) {
		out.Reset()
		f.Reset(&out)
		if _, err := f.Write(src); err != nil {
			return nil, err
		}
		if err := f.Flush(); err != nil {
			return nil, err
		}
		return append(dst, out.Bytes()...), nil
	}, nil
}
