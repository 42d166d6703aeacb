package ovf

import (
	"encoding/binary"
	"math/bits"
)

// This is an encoder of DEFLATE (RFC 1951), with or without a zlib wrapper (RFC 1950), for exactly
// what disk images need: one grain at a time, all of it in memory, independent of all others. So
// positions fit in 16 bits, there is no window to move and no stream to flush, all tokens of a grain
// are known before the first is written, and blocks can be split where the statistics change. And
// the bytes are ours: they do not change when a library does.

const (
	minMatch    = 3
	maxMatch    = 258
	maxDistance = 32 << 10
	hashBits    = 15
	hash3Bits   = 13
	// tooFar is the distance beyond which a match of three bytes costs more than the literals.
	tooFar = 4096
	// padding lets eight bytes be loaded at any position.
	padding = 8
)

// effort is how hard a parser looks for matches.
type effort struct {
	header byte // FLEVEL of the second byte of zlib's header, without its check bits
	depth  int  // candidates looked at; with none, the last position of a hash is taken or nothing
	nice   int  // a match this long is taken at once
	lazy   int  // how many positions to look ahead for a better match
	// skip is after how many positions without a match one is left out, as a power of two: what was
	// compressed before is passed over ever faster.
	skip int
}

var efforts = map[Level]effort{
	Fast:    {header: 0 << 6, skip: 5},
	Default: {header: 2 << 6, depth: 4, nice: 32, lazy: 1, skip: 6},
	Small:   {header: 3 << 6, depth: 128, nice: maxMatch, lazy: 2, skip: 16},
}

// A token is a literal or a match, in a form that tells both apart nowhere: whether a token is one
// or the other is a coin toss, and processors lose most of their time on those. The low 15 bits are
// the distance less one, the next 10 the byte or 256 + the length, the next 5 the distance's symbol.
// A literal has a symbol that no distance has.
type token uint32

const (
	indexShift  = 15
	symbolShift = 25
	noDistance  = distSymbols
)

func literal(b byte) token { return token(b)<<indexShift | noDistance<<symbolShift }

func match(length, distance int) token {
	d := uint32(distance - 1)
	return token(d | uint32(256+length)<<indexShift | uint32(symbolOfDistance(d))<<symbolShift)
}

func (t token) distance() uint32 { return uint32(t) & (1<<indexShift - 1) } // less one
func (t token) index() uint32    { return uint32(t) >> indexShift & 0x3ff }
func (t token) symbol() uint32   { return uint32(t) >> symbolShift & 31 } // of the distance

// A deflater compresses grains. It is big and reused.
type deflater struct {
	effort
	window int                       // the farthest match, in bytes
	in     [GrainSize + padding]byte // the grain, then zeros
	n      int
	head   [1 << hashBits]uint16 // 1 + the last position of a hash of four bytes; 0: none
	head3  [1 << hash3Bits]uint16
	prev   [GrainSize]uint16 // the position before with the same hash, in the same form
	tokens []token
	blocks splitter
	out    []byte
}

func newDeflater(e effort, window int) *deflater {
	return &deflater{effort: e, window: window, tokens: make([]token, 0, GrainSize), out: make([]byte, 0, GrainSize+1024)}
}

// zlib appends the first n bytes of d.in to dst, compressed, in the wrapper of zlib.
func (d *deflater) zlib(dst []byte, n int) []byte {
	header := uint16(0x78)<<8 | uint16(d.header)
	header += 31 - header%31
	dst = d.deflate(binary.BigEndian.AppendUint16(dst, header), n)
	return binary.BigEndian.AppendUint32(dst, adler(d.in[:n]))
}

// deflate appends the first n bytes of d.in to dst, compressed.
func (d *deflater) deflate(dst []byte, n int) []byte {
	d.n = n
	clear(d.in[n:])
	clear(d.head[:])
	d.tokens = d.tokens[:0]
	if d.depth == 0 {
		d.greedy()
	} else {
		clear(d.head3[:])
		d.lookahead()
	}
	return d.blocks.write(dst, d.tokens, d.in[:n])
}

// adler returns the Adler-32 checksum (RFC 1950, 9), eight bytes at once: the lanes of a word are
// added up, weighted, by a multiplication.
func adler(b []byte) uint32 {
	const (
		base  = 65521
		lanes = 0x00ff00ff00ff00ff
		most  = 5552 // bytes until a sum may overflow
	)
	s1, s2 := uint64(1), uint64(0)
	for len(b) > 0 {
		part := b[:min(len(b), most)]
		b = b[len(part):]
		for ; len(part) >= 8; part = part[8:] {
			x := binary.LittleEndian.Uint64(part)
			even, odd := x&lanes, x>>8&lanes
			s2 += 8*s1 + even*(8<<48|6<<32|4<<16|2)>>48 + odd*(7<<48|5<<32|3<<16|1)>>48
			s1 += (even + odd) * (1<<48 | 1<<32 | 1<<16 | 1) >> 48
		}
		for _, c := range part {
			s1 += uint64(c)
			s2 += s1
		}
		s1 %= base
		s2 %= base
	}
	return uint32(s2<<16 | s1)
}

// load32 returns the four bytes at i; the mask tells the compiler that i is in the grain.
func (d *deflater) load32(i int) uint32 {
	return binary.LittleEndian.Uint32(d.in[i&(GrainSize-1):][:4])
}

func hash4(v uint32) uint32 { return v * 0x9e3779b1 >> (32 - hashBits) }

func hash3(v uint32) uint32 { return v << 8 * 0x9e3779b1 >> (32 - hash3Bits) }

// insert notes a position without looking for a match.
func (d *deflater) insert(i int) {
	v := d.load32(i)
	h := hash4(v)
	d.prev[i&(GrainSize-1)] = d.head[h]
	d.head[h] = uint16(i + 1)
	d.head3[hash3(v)] = uint16(i + 1)
}

// find notes position i and returns the longest match there that is longer than best.
func (d *deflater) find(i, best, depth int) (length, distance int) {
	most := min(maxMatch, d.n-i)
	v := d.load32(i)
	h := hash4(v)
	c := d.head[h]
	d.prev[i&(GrainSize-1)] = c
	d.head[h] = uint16(i + 1)
	h3 := hash3(v)
	p3 := int(d.head3[h3]) - 1
	d.head3[h3] = uint16(i + 1)
	if best < minMatch && most >= minMatch && p3 >= 0 && i-p3 <= min(tooFar, d.window) && (d.load32(p3)^v)<<8 == 0 {
		length, distance, best = minMatch, i-p3, minMatch
	}
	best = max(best, minMatch)
	if most <= best {
		return length, distance
	}
	tail := d.load32(i + best - 3)
	for ; c != 0 && depth > 0; depth-- {
		p := int(c) - 1
		if i-p > d.window {
			break
		}
		if d.load32(p+best-3) == tail && d.load32(p) == v {
			n := d.extend(p, i, most)
			if n > best {
				length, distance, best = n, i-p, n
				if n >= d.nice || n == most {
					break
				}
				tail = d.load32(i + best - 3)
			}
		}
		c = d.prev[p&(GrainSize-1)]
	}
	return length, distance
}

// extend returns how many bytes are the same at p and i, of which four are known to be.
func (d *deflater) extend(p, i, most int) int {
	n := 4
	for n < most {
		x := binary.LittleEndian.Uint64(d.in[(p+n)&(GrainSize-1):][:8]) ^ binary.LittleEndian.Uint64(d.in[(i+n)&(GrainSize-1):][:8])
		if x != 0 {
			return min(n+bits.TrailingZeros64(x)>>3, most)
		}
		n += 8
	}
	return most
}

// literals appends the byte at i, and more of them the more there were without a match, and returns
// the position behind.
func (d *deflater) literals(i, missed int) int {
	end := min(i+1+missed>>d.skip, d.n)
	for ; i < end; i++ {
		d.tokens = append(d.tokens, literal(d.in[i]))
	}
	return end
}

// greedy takes the one match that it knows of, if it is one.
func (d *deflater) greedy() {
	missed := 0
	for i := 0; i < d.n; {
		v := d.load32(i)
		h := hash4(v)
		p := int(d.head[h]) - 1
		d.head[h] = uint16(i + 1)
		if p < 0 || d.load32(p) != v || i-p > d.window || d.n-i < 4 {
			missed++
			i = d.literals(i, missed)
			continue
		}
		missed = 0
		length := d.extend(p, i, min(maxMatch, d.n-i))
		d.tokens = append(d.tokens, match(length, i-p))
		end := i + length
		for i++; i < end; i++ {
			d.head[hash4(d.load32(i))] = uint16(i + 1)
		}
	}
}

// lookahead takes a match only if none that begins one or two bytes later is better.
func (d *deflater) lookahead() {
	missed := 0
	for i := 0; i < d.n; {
		length, distance := d.find(i, 0, d.depth)
		if length == 0 {
			missed++
			i = d.literals(i, missed)
			continue
		}
		missed = 0
		known := i + 1 // positions before are noted
	better:
		for length < d.nice {
			for ahead := 1; ahead <= d.lazy; ahead++ {
				at := i + ahead
				if at >= d.n {
					break better
				}
				known = at + 1
				n, far := d.find(at, length-1, d.depth>>ahead)
				if n == 0 || gain(n, far)-gain(length, distance) <= 4*ahead-2 {
					continue
				}
				for ; i < at; i++ {
					d.tokens = append(d.tokens, literal(d.in[i]))
				}
				length, distance = n, far
				continue better
			}
			break
		}
		d.tokens = append(d.tokens, match(length, distance))
		end := i + length
		for i = known; i < end; i++ {
			d.insert(i)
		}
		i = end
	}
}

// gain is what a match is worth, in about half a bit: longer is better, farther is worse.
func gain(length, distance int) int { return 4*length - bits.Len32(uint32(distance)) }
