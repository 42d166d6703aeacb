package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A baseline remembers what was written for each entry of a content manifest, in its order. An
// object with the same inode number and change time is still that object, unchanged in content,
// owner, mode, attributes and number of links: every change sets the change time, which nobody
// can set back without setting the clock of the host. It stands in the state folder, where only
// the host's owner can write.
type baseline struct {
	dev   uint64 // of the file system
	marks []mark
}

// A mark is what a baseline remembers of one entry.
type mark struct {
	ino   uint64 // 0: not known, so nothing is believed
	ctime int64  // nanoseconds
	flags uint8
}

// What could not be made as the manifest says; it is not compared.
const (
	noOwner uint8 = 1 << iota
	noXattrs
	noObject
	noMode
	isSite // written from site values
)

// believes reports whether the object is what was written for entry i.
func (b *baseline) believes(i int, o *object) bool {
	m := &b.marks[i]
	return m.ino != 0 && m.ino == o.ino && m.ctime == o.ctime && b.dev == o.dev
}

// The file: magic, digest of the image, device number, count, marks of 17 bytes each, SHA-256 of
// it all. Numbers are little-endian.
const (
	baselineMagic = "ISCBASE1"
	baselineHead  = len(baselineMagic) + sha256.Size + 8 + 4
	markSize      = 17
)

// marshal encodes the baseline of an instance of the image of this digest.
func (b *baseline) marshal(digest string) []byte {
	data := make([]byte, 0, baselineHead+markSize*len(b.marks)+sha256.Size)
	data = append(data, baselineMagic...)
	id := sha256.Sum256([]byte(digest))
	data = append(data, id[:]...)
	data = binary.LittleEndian.AppendUint64(data, b.dev)
	data = binary.LittleEndian.AppendUint32(data, uint32(len(b.marks)))
	for i := range b.marks {
		m := &b.marks[i]
		data = binary.LittleEndian.AppendUint64(data, m.ino)
		data = binary.LittleEndian.AppendUint64(data, uint64(m.ctime))
		data = append(data, m.flags)
	}
	sum := sha256.Sum256(data)
	return append(data, sum[:]...)
}

// parseBaseline decodes the baseline of an image with n entries.
func parseBaseline(data []byte, digest string, n int) (*baseline, error) {
	if len(data) != baselineHead+markSize*n+sha256.Size || !bytes.HasPrefix(data, []byte(baselineMagic)) {
		return nil, fmt.Errorf("%d bytes are not the baseline of %d entries", len(data), n)
	}
	body, tail := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], tail) {
		return nil, fmt.Errorf("its checksum is wrong")
	}
	p := body[len(baselineMagic):]
	if id := sha256.Sum256([]byte(digest)); !bytes.Equal(id[:], p[:sha256.Size]) {
		return nil, fmt.Errorf("it belongs to another image")
	}
	p = p[sha256.Size:]
	b := &baseline{dev: binary.LittleEndian.Uint64(p), marks: make([]mark, n)}
	if binary.LittleEndian.Uint32(p[8:]) != uint32(n) {
		return nil, fmt.Errorf("its count is wrong")
	}
	p = p[12:]
	for i := range b.marks {
		b.marks[i] = mark{binary.LittleEndian.Uint64(p), int64(binary.LittleEndian.Uint64(p[8:])), p[16]}
		p = p[markSize:]
	}
	return b, nil
}

// readBaseline reads the file of this path.
func readBaseline(path, digest string, c *image.Content) (*baseline, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	b, err := parseBaseline(data, digest, c.Len())
	if err != nil {
		return nil, fmt.Errorf("baseline %q is damaged: %w; reset the instance", path, err)
	}
	return b, nil
}

// write stores the baseline under this path.
func (b *baseline) write(path, digest string) error {
	return replaceFile(path+".new", path, b.marshal(digest))
}

// forget keeps what could not be made, and believes nothing.
func (b *baseline) forget() {
	for i := range b.marks {
		b.marks[i].ino = 0
	}
}
