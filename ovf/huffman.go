package ovf

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// The alphabets of RFC 1951, 3.2.5 to 3.2.7.
const (
	endOfBlock  = 256
	litSymbols  = 286
	distSymbols = 30
	lenSymbols  = 19 // of the code of code lengths
	maxBits     = 15
	maxLenBits  = 7
)

// lengthSymbols and distances give the symbol of a length, and the extra bits of symbols.
var (
	lengthSymbol [512]uint16
	indexes      [1024]uint32 // of a token's index: the symbol, and the bytes it stands for << 16
	lengthBase   [litSymbols]uint16
	lengthExtra  [litSymbols]uint8
	distBase     [distSymbols]uint16
	distExtra    [distSymbols]uint8
	distSymbol   [512]uint8 // of distance-1 below 256, then of (distance-1)>>7
	log2         [256]uint32
)

// lenOrder is in which order the lengths of the code of code lengths are written.
var lenOrder = [lenSymbols]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

func init() {
	length := minMatch
	for s := 257; s < 285; s++ {
		extra := max(0, (s-261)/4)
		lengthBase[s], lengthExtra[s] = uint16(length), uint8(extra)
		for range 1 << extra {
			if length < maxMatch {
				lengthSymbol[length] = uint16(s)
			}
			length++
		}
	}
	lengthSymbol[maxMatch], lengthBase[285] = 285, maxMatch
	for i := range uint32(256) {
		indexes[i] = i | 1<<16
	}
	for n := uint32(minMatch); n <= maxMatch; n++ {
		indexes[256+n] = uint32(lengthSymbol[n]) | n<<16
	}
	distance := 0 // minus one
	for s := range distSymbols {
		extra := max(0, s/2-1)
		distBase[s], distExtra[s] = uint16(distance), uint8(extra)
		for range 1 << extra {
			if distance < 256 {
				distSymbol[distance] = uint8(s)
			} else {
				distSymbol[256+distance>>7] = uint8(s)
			}
			distance++
		}
	}
	// The fraction of the logarithm, by squaring: integers only, so it is the same on every machine.
	for i := range log2 {
		x, y := uint64(256+i)<<23, uint32(0) // between 1 and 2, with 31 bits after the point
		for range logBits {
			x = x * x >> 31
			y <<= 1
			if x >= 2<<31 {
				x >>= 1
				y |= 1
			}
		}
		log2[i] = y
	}
}

const logBits = 12

// logarithm returns the binary logarithm of x > 0, with logBits after the point.
func logarithm(x uint32) uint64 {
	e := bits.Len32(x) - 1
	return uint64(e)<<logBits + uint64(log2[uint64(x)<<8>>e&0xff])
}

func symbolOfDistance(d uint32) uint8 { // minus one
	i := d
	if d >= 256 {
		i = 256 + d>>7
	}
	return distSymbol[i&511]
}

// A histogram counts the symbols of a part of the tokens.
type histogram struct {
	lit  [512]uint32 // litSymbols are in use: indexes of nine bits need no check
	dist [32]uint32  // distSymbols are in use
	size int         // bytes that the tokens stand for
}

func (h *histogram) count(tokens []token) {
	size := uint32(0)
	for _, t := range tokens {
		x := indexes[t.index()]
		size += x >> 16
		h.lit[x&0x1ff]++
		h.dist[t.symbol()]++
	}
	h.size += int(size)
}

func (h *histogram) add(o *histogram) {
	for i := range litSymbols {
		h.lit[i] += o.lit[i]
	}
	for i := range distSymbols {
		h.dist[i] += o.dist[i]
	}
	h.size += o.size
}

// cost estimates the bits of a block by the entropy of its symbols, with logBits after the point.
// Extra bits are left out: they are the same however the blocks are cut.
func (h *histogram) cost() uint64 {
	return entropy(h.lit[:litSymbols]) + entropy(h.dist[:distSymbols])
}

func entropy(counts []uint32) uint64 {
	var total uint32
	var sum, used uint64
	for _, c := range counts {
		if c != 0 {
			total += c
			sum += uint64(c) * logarithm(c)
			used++
		}
	}
	if total == 0 {
		return 0
	}
	return uint64(total)*logarithm(total) - sum + used*symbolBits<<logBits
}

const (
	// chunkTokens is the granularity of blocks.
	chunkTokens = 1024
	// symbolBits is what a symbol in use costs in the header of a block, about.
	symbolBits = 3
	// blockBits is what a block costs besides.
	blockBits = 60
)

// A splitter cuts the tokens of a grain into blocks and writes them.
type splitter struct {
	chunks []histogram
	w      bitWriter
	lit    code
	dist   code
	lens   code
	header []uint16 // code lengths, run-length coded: symbol, and the value of its extra bits << 8
}

// write appends the blocks of a grain to dst.
func (s *splitter) write(dst []byte, tokens []token, in []byte) []byte {
	s.chunks = s.chunks[:0]
	for part := range slices.Chunk(tokens, chunkTokens) {
		s.chunks = append(s.chunks, histogram{})
		s.chunks[len(s.chunks)-1].count(part)
	}
	s.w = bitWriter{out: dst}
	at := 0 // of in
	for first := 0; first < len(s.chunks); {
		// A block grows while one block is cheaper than two.
		h := s.chunks[first]
		cost := h.cost()
		next := first + 1
		for ; next < len(s.chunks); next++ {
			both := h
			both.add(&s.chunks[next])
			joined := both.cost()
			if joined > cost+s.chunks[next].cost()+blockBits<<logBits {
				break
			}
			h, cost = both, joined
		}
		end := min(next*chunkTokens, len(tokens))
		part := tokens[first*chunkTokens : end]
		s.block(&h, part, in[at:at+h.size], end == len(tokens))
		at += h.size
		first = next
	}
	return s.w.flush()
}

// block writes one block in the cheapest of its three kinds.
func (s *splitter) block(h *histogram, tokens []token, in []byte, final bool) {
	h.lit[endOfBlock] = 1
	lit, dist := h.lit[:litSymbols], h.dist[:distSymbols]
	extra := 0
	for i, c := range lit[257:] {
		extra += int(c) * int(lengthExtra[257+i])
	}
	for i, c := range dist {
		extra += int(c) * int(distExtra[i])
	}
	s.lit.build(lit, maxBits)
	s.dist.build(dist, maxBits)
	dynamic := s.prepare() + s.lit.size(lit) + s.dist.size(dist) + extra
	fixed := fixedLit.size(lit) + fixedDist.size(dist) + extra
	stored := 8*len(in) + 8*5*(len(in)/maxStored+1)
	last := uint64(0)
	if final {
		last = 1
	}
	switch {
	case stored <= min(dynamic, fixed):
		s.store(in, last)
	case fixed <= dynamic:
		s.w.put(last|1<<1, 3)
		s.w.tokens(tokens, &fixedLit, &fixedDist)
	default:
		s.w.put(last|2<<1, 3)
		s.head()
		s.w.tokens(tokens, &s.lit, &s.dist)
	}
}

const maxStored = 1<<16 - 1

// store writes bytes as they are.
func (s *splitter) store(in []byte, last uint64) {
	for {
		n := min(len(in), maxStored)
		bit := last
		if n < len(in) {
			bit = 0
		}
		s.w.put(bit, 3)
		s.w.align()
		s.w.put(uint64(n)|uint64(^uint16(n))<<16, 32)
		s.w.bytes(in[:n])
		if in = in[n:]; len(in) == 0 {
			return
		}
	}
}

// prepare run-length codes the lengths of both codes (RFC 1951, 3.2.7) and returns the bits that
// head will write.
func (s *splitter) prepare() int {
	s.header = s.header[:0]
	all := make([]uint8, 0, litSymbols+distSymbols)
	all = append(all, s.lit.length[:s.lit.used(257)]...)
	all = append(all, s.dist.length[:s.dist.used(1)]...)
	for i := 0; i < len(all); {
		v := all[i]
		n := 1
		for i+n < len(all) && all[i+n] == v {
			n++
		}
		i += n
		if v == 0 {
			for n >= 3 {
				k := min(n, 138)
				if k <= 10 {
					s.header = append(s.header, 17|uint16(k-3)<<8)
				} else {
					s.header = append(s.header, 18|uint16(k-11)<<8)
				}
				n -= k
			}
		} else {
			s.header = append(s.header, uint16(v))
			for n--; n >= 3; {
				k := min(n, 6)
				s.header = append(s.header, 16|uint16(k-3)<<8)
				n -= k
			}
		}
		for range n {
			s.header = append(s.header, uint16(v))
		}
	}
	var counts [lenSymbols]uint32
	size := 14
	for _, x := range s.header {
		counts[x&0xff]++
		size += int(lenExtra(x))
	}
	s.lens.build(counts[:], maxLenBits)
	return size + 3*s.lensUsed() + s.lens.size(counts[:])
}

func lenExtra(x uint16) uint {
	switch x & 0xff {
	case 16:
		return 2
	case 17:
		return 3
	case 18:
		return 7
	}
	return 0
}

// lensUsed returns how many lengths of the code of code lengths are written.
func (s *splitter) lensUsed() int {
	n := lenSymbols
	for n > 4 && s.lens.length[lenOrder[n-1]] == 0 {
		n--
	}
	return n
}

func (s *splitter) head() {
	n := s.lensUsed()
	s.w.put(uint64(s.lit.used(257)-257)|uint64(s.dist.used(1)-1)<<5|uint64(n-4)<<10, 14)
	for _, i := range lenOrder[:n] {
		s.w.put(uint64(s.lens.length[i]), 3)
	}
	for _, x := range s.header {
		sym := x & 0xff
		s.w.put(uint64(s.lens.code[sym])|uint64(x>>8)<<s.lens.length[sym], uint(s.lens.length[sym])+lenExtra(x))
	}
}

// A bitWriter writes bits, the lowest first.
type bitWriter struct {
	out []byte
	acc uint64
	n   uint // bits in acc, below 8 between calls
}

// put writes n bits, at most 56.
func (w *bitWriter) put(v uint64, n uint) {
	w.acc |= v << w.n
	w.n += n
	for w.n >= 8 {
		w.out = append(w.out, byte(w.acc))
		w.acc >>= 8
		w.n -= 8
	}
}

func (w *bitWriter) align() {
	if w.n > 0 {
		w.put(0, 8-w.n)
	}
}

func (w *bitWriter) bytes(b []byte) { w.out = append(w.out, b...) }

func (w *bitWriter) flush() []byte {
	w.align()
	return w.out
}

// tokens writes tokens and the end of the block.
func (w *bitWriter) tokens(tokens []token, lit, dist *code) {
	// What is written for each index and each symbol of a distance, and how many bits that is, in
	// tables of their own: they have room for every value, so that nothing is looked up twice or checked.
	var heads [1024]uint32
	var distances [32]struct {
		code        uint16
		base        uint16
		bits, extra uint8
	}
	for s := range 256 {
		heads[s] = uint32(lit.code[s]) | uint32(lit.length[s])<<24
	}
	for n := minMatch; n <= maxMatch; n++ {
		s := lengthSymbol[n]
		l := lit.length[s]
		v := uint32(lit.code[s]) | (uint32(n)-uint32(lengthBase[s]))<<l
		heads[256+n] = v | uint32(l+lengthExtra[s])<<24
	}
	for s := range distBase {
		distances[s].code, distances[s].bits = dist.code[s], dist.length[s]
		distances[s].base, distances[s].extra = distBase[s], distExtra[s]
	}
	// Eight bytes are stored at once for each token, of which the whole ones stay: a token has 48 bits
	// at most and 7 wait. A literal has no bits in the place of a distance.
	need := len(w.out) + 8*len(tokens) + 16
	out := slices.Grow(w.out, need-len(w.out))[:need]
	at, acc, n := len(w.out), w.acc, w.n
	for _, t := range tokens {
		v := heads[t.index()]
		acc |= uint64(v&0xffffff) << (n & 63)
		n += uint(v >> 24)
		d := &distances[t.symbol()]
		acc |= (uint64(d.code) | uint64(t.distance()-uint32(d.base))<<(d.bits&63)) << (n & 63)
		n += uint(d.bits + d.extra)
		binary.LittleEndian.PutUint64(out[at:], acc)
		at += int(n >> 3)
		acc >>= n &^ 7 & 63
		n &= 7
	}
	w.out, w.acc, w.n = out[:at], acc, n
	w.put(uint64(lit.code[endOfBlock]), uint(lit.length[endOfBlock]))
}
