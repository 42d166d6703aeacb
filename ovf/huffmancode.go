package ovf

import (
	"math/bits"
	"slices"
)

// A code is a canonical Huffman code; its codes are bit-reversed, as they are written.
type code struct {
	length [litSymbols + 2]uint8
	code   [litSymbols + 2]uint16
	nodes  []treeNode
	order  []uint32 // counts << 9 and symbols, to be sorted
	spare  []uint32 // of the same length, for sorting
}

// A treeNode is a leaf or an inner node of a Huffman tree.
type treeNode struct {
	count  uint32 // then its depth
	symbol uint16
	parent uint16
}

// build makes the code of at most limit bits for symbols that occur so often. A code of one symbol
// has one bit; one of none has none, which is allowed for distances.
func (c *code) build(counts []uint32, limit int) {
	clear(c.length[:])
	c.order = c.order[:0]
	for s, n := range counts { // a grain has 2^16 symbols, and the end
		if n > 0 {
			c.order = append(c.order, n<<9|uint32(s))
		}
	}
	c.sort()
	c.nodes = c.nodes[:0]
	for _, x := range c.order {
		c.nodes = append(c.nodes, treeNode{count: x >> 9, symbol: uint16(x & 0x1ff)})
	}
	leaves := len(c.nodes)
	switch leaves {
	case 0:
		return
	case 1:
		// Some decoders want a complete code: a second symbol of one bit costs nothing.
		s := c.nodes[0].symbol
		c.length[s] = 1
		if s == 0 {
			c.length[1] = 1
		} else {
			c.length[0] = 1
		}
		c.assign(len(counts))
		return
	}
	// Two queues: the leaves, and the inner nodes in the order they are made.
	leaf, inner := 0, leaves
	take := func() int {
		if leaf < leaves && (inner >= len(c.nodes) || c.nodes[leaf].count <= c.nodes[inner].count) {
			leaf++
			return leaf - 1
		}
		inner++
		return inner - 1
	}
	for range leaves - 1 {
		a, b := take(), take()
		p := len(c.nodes)
		c.nodes = append(c.nodes, treeNode{count: c.nodes[a].count + c.nodes[b].count})
		c.nodes[a].parent, c.nodes[b].parent = uint16(p), uint16(p)
	}
	// Depths from the root down, kept in count; those beyond the limit are made up for elsewhere.
	var per [maxBits + 1]int
	c.nodes[len(c.nodes)-1].count = 0
	for i := len(c.nodes) - 2; i >= 0; i-- {
		depth := c.nodes[c.nodes[i].parent].count + 1
		c.nodes[i].count = depth
		if i < leaves {
			per[min(int(depth), limit)]++
		}
	}
	// Kraft's sum in units of the longest code: too many long ones push shorter ones down.
	sum := 0
	for l := 1; l <= limit; l++ {
		sum += per[l] << (limit - l)
	}
	for sum > 1<<limit {
		l := limit - 1
		for per[l] == 0 {
			l--
		}
		per[l]--
		per[l+1]++
		sum -= 1 << (limit - l - 1)
	}
	for l := limit; l > 1 && sum < 1<<limit; l-- { // give back what was pushed too far
		for per[l] > 0 && sum+1<<(limit-l) <= 1<<limit {
			per[l]--
			per[l-1]++
			sum += 1 << (limit - l)
		}
	}
	i := 0 // the rarest get the longest
	for l := limit; l > 0; l-- {
		for range per[l] {
			c.length[c.nodes[i].symbol] = uint8(l)
			i++
		}
	}
	c.assign(len(counts))
}

// sort sorts order by counts; those with the same count stay in the order of symbols, which they
// are in. One digit of eight bits after the other, the lowest first.
func (c *code) sort() {
	var most uint32
	for _, x := range c.order {
		most = max(most, x)
	}
	c.spare = slices.Grow(c.spare[:0], len(c.order))[:len(c.order)]
	for shift := 9; most>>shift != 0; shift += 8 {
		var at [256]uint16
		for _, x := range c.order {
			at[x>>shift&0xff]++
		}
		next := uint16(0)
		for i, n := range at {
			at[i] = next
			next += n
		}
		for _, x := range c.order {
			d := x >> shift & 0xff
			c.spare[at[d]] = x
			at[d]++
		}
		c.order, c.spare = c.spare, c.order
	}
}

// assign gives the canonical codes to the lengths (RFC 1951, 3.2.2).
func (c *code) assign(symbols int) {
	var per, next [maxBits + 2]uint16
	for _, l := range c.length[:symbols] {
		per[l]++
	}
	per[0] = 0
	for l := 1; l <= maxBits; l++ {
		next[l+1] = (next[l] + per[l]) << 1
	}
	for s, l := range c.length[:symbols] {
		if l > 0 {
			c.code[s] = bits.Reverse16(next[l]) >> (16 - l)
			next[l]++
		}
	}
}

// size returns the bits of symbols that occur so often, without extra bits.
func (c *code) size(counts []uint32) (n int) {
	for s, k := range counts {
		n += int(k) * int(c.length[s])
	}
	return n
}

// used returns how many symbols are written, at least so many.
func (c *code) used(least int) int {
	n := len(c.length)
	for n > least && c.length[n-1] == 0 {
		n--
	}
	return n
}

// fixedLit and fixedDist are the codes of RFC 1951, 3.2.6.
var fixedLit, fixedDist = func() (lit, dist code) {
	for s := range lit.length {
		switch {
		case s < 144:
			lit.length[s] = 8
		case s < 256:
			lit.length[s] = 9
		case s < 280:
			lit.length[s] = 7
		default:
			lit.length[s] = 8
		}
	}
	lit.assign(litSymbols + 2)
	for s := range 32 {
		dist.length[s] = 5
	}
	dist.assign(32)
	return lit, dist
}()
