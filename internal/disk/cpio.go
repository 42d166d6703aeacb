package disk

import "fmt"

// A cpio is an archive of format newc, as the kernel unpacks it.
type cpio struct {
	b   []byte
	ino int
}

// add appends one object: mode is st_mode, the numbers are of a device.
func (c *cpio) add(name string, mode uint32, major, minor int, data []byte) {
	c.ino++
	nlink := 1
	if mode&0o170000 == 0o040000 {
		nlink = 2
	}
	c.b = fmt.Appendf(c.b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		c.ino, mode, 0, 0, nlink, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.b = append(append(c.b, name...), 0)
	c.pad()
	c.b = append(c.b, data...)
	c.pad()
}

func (c *cpio) pad() {
	for len(c.b)%4 != 0 {
		c.b = append(c.b, 0)
	}
}

// bytes ends the archive.
func (c *cpio) bytes() []byte {
	c.ino = -1
	c.add("TRAILER!!!", 0, 0, 0, nil)
	return c.b
}
