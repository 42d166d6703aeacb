package zfs

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestMutations reads streams of which one field is anything, with right checksums: nothing may
// panic, hang or take memory, whatever comes of it.
func TestMutations(t *testing.T) {
	t.Parallel()
	rounds := 600
	if os.Getenv("ISC_NIGHTLY") == "1" {
		rounds = 200_000
	}
	var seeds [][]byte
	for _, o := range []Options{{}, {Profile: ZPL4}, {LZ4: true}, {Platform: Illumos}} {
		f := small()
		f.file("text", bytes.Repeat([]byte("text "), 500))
		seeds = append(seeds, f.write(t, o))
	}
	for _, name := range slices.Sorted(maps.Keys(realStreams)) {
		seeds = append(seeds, realStream(t, name))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range rounds {
		stream := bytes.Clone(seeds[rnd.IntN(len(seeds))])
		mutate(t, rnd, stream)
		resum(stream)
		r := bytes.NewReader(stream)
		if s, err := Open(r, int64(len(stream)), ""); err == nil {
			readAll(s)
		}
		Check(r, int64(len(stream)))
		Dump(io.Discard, r, int64(len(stream)))
	}
}

// mutate changes a number in a record, or in the part of a payload that says something.
func mutate(t *testing.T, rnd *rand.Rand, stream []byte) {
	var starts []Record
	z := NewReader(bytes.NewReader(stream))
	for {
		rec, err := z.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		starts = append(starts, *rec)
	}
	rec := starts[rnd.IntN(len(starts))]
	from, n := rec.Pos, 128
	if k := len(rec.Payload); k > 0 && rnd.IntN(3) > 0 {
		from, n = rec.Pos+headerSize, min(k, 1200)
		if k > fatBlock/2 && rnd.IntN(2) == 0 {
			from += fatBlock / 2 // the pointer table
		}
	}
	at := stream[from+int64(rnd.IntN(n)):]
	values := []uint64{0, 1, 2, 3, 7, 127, 255, 511, 512, 1 << 15, 1<<16 - 1, 1 << 31, 1<<32 - 1, 1 << 48, 1 << 62, 1 << 63, 1<<64 - 1, rnd.Uint64()}
	v := values[rnd.IntN(len(values))]
	switch rnd.IntN(4) {
	case 0:
		at[0] = byte(v)
	case 1:
		binary.LittleEndian.PutUint16(at, uint16(v))
	case 2:
		binary.LittleEndian.PutUint32(at, uint32(v))
	default:
		binary.LittleEndian.PutUint64(at, v)
	}
}

// raw makes streams by hand.
type raw struct{ encoder }

func newRaw(w io.Writer) *raw {
	return &raw{encoder{w: w, buf: make([]byte, 0, writeBuffer), guid: 77}}
}

func (r *raw) begin(edit func(u []byte)) {
	r.encoder.begin(&Options{Name: "a@b"}, 0, 0)
	if edit != nil {
		edit(r.buf[8:])
		r.sum = fletcher4{}
		r.sum.add(r.buf)
	}
}

func TestReaderRefuses(t *testing.T) {
	le := binary.LittleEndian
	feature := func(f uint64) func(r *raw) {
		return func(r *raw) { r.begin(func(u []byte) { le.PutUint64(u[8:], headerSubstream|f<<2) }) }
	}
	object := func(r *raw, edit func(u []byte)) {
		r.begin(nil)
		u, _ := r.record(RecordObject, 0)
		le.PutUint64(u, 8)
		le.PutUint32(u[8:], typeFile)
		le.PutUint32(u[16:], 512)
		le.PutUint64(u[32:], r.guid)
		edit(u)
		r.commit()
	}
	write := func(r *raw, edit func(u []byte)) {
		object(r, func([]byte) {})
		u, p := r.record(RecordWrite, 512)
		le.PutUint64(u, 8)
		le.PutUint64(u[24:], 512)
		le.PutUint64(u[32:], r.guid)
		clear(p)
		edit(u)
		r.commit()
	}
	record := func(kind RecordType, payload int, values map[int]uint64) func(r *raw) {
		return func(r *raw) {
			object(r, func([]byte) {})
			u, p := r.record(kind, payload)
			clear(p)
			for off, v := range values {
				le.PutUint64(u[off:], v)
			}
			r.commit()
		}
	}
	for name, c := range map[string]struct {
		make func(r *raw)
		want string
	}{
		"nothing":            {func(*raw) {}, "unexpected EOF"},
		"text":               {func(r *raw) { r.buf = append(r.buf, strings.Repeat("text ", 100)...) }, "not a send stream"},
		"short text":         {func(r *raw) { r.buf = append(r.buf, "text"...) }, "not a send stream"},
		"raw":                {feature(featureRaw), "a raw (encrypted) stream"},
		"redacted":           {feature(featureRedacted), "a redacted stream"},
		"resuming":           {feature(featureResuming), "a resuming stream"},
		"unknown feature":    {feature(1 << 40), "unknown features 0x10000000000"},
		"header type":        {func(r *raw) { r.begin(func(u []byte) { u[8] = 3 }) }, "header type 3"},
		"volume":             {func(r *raw) { r.begin(func(u []byte) { u[24] = 3 }) }, "of a volume"},
		"folded":             {func(r *raw) { r.begin(func(u []byte) { u[28] |= flagCIData }) }, "folds case"},
		"no snapshot":        {func(r *raw) { r.begin(func(u []byte) { copy(u[48:], "name") }) }, "not those of a snapshot"},
		"endless name":       {func(r *raw) { r.begin(func(u []byte) { copy(u[48:], strings.Repeat("@", 256)) }) }, "name without end"},
		"increment":          {func(r *raw) { r.begin(func(u []byte) { le.PutUint64(u[40:], 5) }) }, "guid 0x5, which is not there"},
		"second BEGIN":       {func(r *raw) { r.begin(nil); r.begin(nil) }, "BEGIN: not expected"},
		"unknown record":     {record(99, 0, nil), "record type 99: not expected"},
		"object range":       {record(RecordObjectRange, 0, nil), "OBJECT_RANGE: not expected"},
		"object number":      {func(r *raw) { object(r, func(u []byte) { le.PutUint64(u, 1<<48) }) }, "object number 281474976710656"},
		"object 0":           {func(r *raw) { object(r, func(u []byte) { le.PutUint64(u, 0) }) }, "object number 0"},
		"other guid":         {func(r *raw) { object(r, func(u []byte) { le.PutUint64(u[32:], 1) }) }, "snapshot guid 0x1"},
		"odd blocks":         {func(r *raw) { object(r, func(u []byte) { le.PutUint32(u[16:], 513) }) }, "blocks of 513 bytes"},
		"large blocks":       {func(r *raw) { object(r, func(u []byte) { le.PutUint32(u[16:], 1<<25) }) }, "blocks of 33554432 bytes"},
		"large bonus":        {func(r *raw) { object(r, func(u []byte) { le.PutUint32(u[20:], 1<<20) }) }, "bonus of 1048576 bytes"},
		"raw lengths":        {func(r *raw) { object(r, func(u []byte) { u[41] = 2 }) }, "only raw streams"},
		"write behind":       {func(r *raw) { write(r, func(u []byte) { le.PutUint64(u[16:], 1<<63) }) }, "block of 512 bytes at"},
		"unaligned":          {func(r *raw) { write(r, func(u []byte) { le.PutUint64(u[16:], 7) }) }, "block of 512 bytes at 7"},
		"huge block":         {func(r *raw) { write(r, func(u []byte) { le.PutUint64(u[24:], 1<<40) }) }, "block of 1099511627776 bytes"},
		"other block":        {func(r *raw) { write(r, func(u []byte) { le.PutUint64(u, 9) }) }, "there is no such object"},
		"compressed to more": {func(r *raw) { write(r, func(u []byte) { u[42] = 15; le.PutUint64(u[88:], 1<<30) }) }, "compressed to 1073741824"},
		"write twice": {func(r *raw) {
			write(r, func([]byte) {})
			copy(r.buf[len(r.buf):cap(r.buf)], r.buf[r.start:])
			u, p := r.record(RecordWrite, 512)
			le.PutUint64(u, 8)
			le.PutUint64(u[24:], 512)
			le.PutUint64(u[32:], r.guid)
			clear(p)
			r.commit()
		}, "not in ascending order"},
		"free what is new":      {func(r *raw) { write(r, func([]byte) {}); r.free(8, 0, noLength) }, "which this stream wrote"},
		"object twice":          {func(r *raw) { object(r, func([]byte) {}); r.freeObjects(8, 1) }, "not in ascending order"},
		"free no object":        {func(r *raw) { r.begin(nil); r.free(3, 0, noLength) }, "there is no such object"},
		"too many to free":      {record(RecordFreeObjects, 0, map[int]uint64{0: 9, 8: noLength, 16: 77}), "no such numbers"},
		"spill without object":  {record(RecordSpill, 512, map[int]uint64{0: 9, 8: 512, 16: 77}), "there is no such object"},
		"large spill":           {record(RecordSpill, 512, map[int]uint64{0: 8, 8: 1 << 30, 16: 77}), "spill block of 1073741824 bytes"},
		"repeat of nothing":     {record(RecordWriteByRef, 0, map[int]uint64{0: 8, 16: 512, 24: 77, 32: 77, 40: 3}), "which are not there"},
		"large embedded block":  {record(RecordWriteEmbedded, 120, map[int]uint64{0: 8, 16: 512, 24: 77, 32: 15, 40: 512 | 113<<32}), "512 bytes compressed to 113"},
		"embedded beyond block": {record(RecordWriteEmbedded, 8, map[int]uint64{0: 8, 16: 512, 24: 77, 32: 15, 40: 1024 | 8<<32}), "1024 bytes compressed to 8"},
		"no master node":        {func(r *raw) { object(r, func([]byte) {}) }, "master node: there is no object 1"},
	} {
		var out writer
		r := newRaw(&out)
		c.make(r)
		if len(r.buf) >= headerSize && name != "text" {
			r.end()
		} else {
			r.flush()
		}
		_, err := Open(bytes.NewReader(out), int64(len(out)), "")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}
