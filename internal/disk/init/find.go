//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// disks are the devices of the partitions.
type disks struct{ root, hash, swap, scratch, data string }

// patience is how long a disk may take to appear.
const patience = 30 * time.Second

// findDisks loads drivers until the disks are there. Swap, scratch and data are of the disk that has
// the root, or of one that has it not: a second copy of the machine's disk cannot lend them.
func findDisks(c *cmdline, m *modules) (*disks, error) {
	const step = 50 * time.Millisecond
	var missing string
	for began := time.Now(); time.Since(began) < patience; time.Sleep(step) { // of the monotonic clock
		m.loadDrivers()
		var tables []map[string]string
		for _, name := range blockDevices() {
			if t := readTable(name); len(t) > 0 {
				tables = append(tables, t)
			}
		}
		d := &disks{}
		if d, missing = pick(c, tables); missing == "" {
			return d, nil
		}
	}
	return nil, fmt.Errorf("no %s after %v", missing, patience)
}

// pick chooses the partitions among the tables of all disks, and says what is missing.
func pick(c *cmdline, tables []map[string]string) (d *disks, missing string) {
	d = &disks{}
	var system map[string]string
	for _, t := range tables {
		if t[c.root] != "" && t[c.verity.hash] != "" {
			system = t
			break
		}
	}
	if system == nil {
		return d, "partition " + c.root
	}
	d.root, d.hash = system[c.root], system[c.verity.hash]
	for _, p := range []struct {
		id string
		to *string
	}{{c.swap, &d.swap}, {c.scratch, &d.scratch}, {c.data, &d.data}} {
		if p.id == "" {
			continue
		}
		for _, t := range tables {
			if (t[c.root] != "") != c.second && *p.to == "" {
				*p.to = t[p.id]
			}
		}
		if *p.to == "" {
			return d, "partition " + p.id
		}
	}
	return d, ""
}

// blockDevices returns the names of disks.
func blockDevices() (names []string) {
	entries, _ := os.ReadDir("/sys/block")
next:
	for _, e := range entries {
		for _, p := range []string{"loop", "dm-", "ram", "sr", "zram", "md"} {
			if strings.HasPrefix(e.Name(), p) {
				continue next
			}
		}
		names = append(names, e.Name())
	}
	return names
}

// readTable returns the devices of a disk's partitions by GUID.
func readTable(name string) map[string]string {
	size := 512
	if text, err := os.ReadFile(path.Join("/sys/block", name, "queue/logical_block_size")); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n >= 512 && n <= 1<<16 {
			size = n
		}
	}
	f, err := os.Open("/dev/" + name)
	if err != nil {
		return nil
	}
	defer f.Close()
	ids, err := parseGPT(f, int64(size))
	if err != nil {
		return nil
	}
	table := map[string]string{}
	numbers, _ := filepath.Glob(path.Join("/sys/block", name, "*/partition"))
	for _, file := range numbers {
		text, err := os.ReadFile(file)
		n, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && err2 == nil && ids[n] != "" {
			table[ids[n]] = "/dev/" + path.Base(path.Dir(file))
		}
	}
	return table
}

// parseGPT returns the GUIDs of partitions by their number, in lower case.
func parseGPT(r io.ReaderAt, sector int64) (map[int]string, error) {
	le := binary.LittleEndian
	h := make([]byte, 512)
	if _, err := r.ReadAt(h, sector); err != nil {
		return nil, err
	}
	size, count := le.Uint32(h[84:]), le.Uint32(h[80:])
	if !bytes.HasPrefix(h, []byte("EFI PART")) || size < 128 || size > 512 || count > 256 {
		return nil, errors.New("no partition table")
	}
	at := le.Uint64(h[72:])
	if at > 1<<40 {
		return nil, errors.New("no partition table")
	}
	table := make([]byte, size*count)
	if _, err := r.ReadAt(table, int64(at)*sector); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(table) != le.Uint32(h[88:]) {
		return nil, errors.New("damaged partition table")
	}
	ids := map[int]string{}
	for i := range int(count) {
		e := table[i*int(size):]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		g := e[16:32]
		ids[i+1] = fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
	}
	return ids, nil
}
