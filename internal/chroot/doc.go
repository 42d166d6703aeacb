// Package chroot runs commands in a Linux root file system that is no machine: the tree is unpacked
// into a folder, commands run in it as its root, and what they did is read back as a tree.
//
// Root of the machine needs nothing else for it. An ordinary user gets a user namespace
// (user_namespaces(7)) in which the ids of /etc/subuid and /etc/subgid stand for those of the tree,
// made by newuidmap(1) and newgidmap(1). One id would not do: package managers chown.
//
// A command sees the tree as its root, the network of this machine and its resolv.conf, an own /proc
// and /dev, and no processes but its own, which end with it. /proc, /dev and /sys of the tree are left
// alone, and so are its device nodes, which an ordinary user cannot make.
//
// This keeps order, it is no prison: what root of the machine runs in a tree is root of the machine. Who
// does not trust the tree or the commands builds as an ordinary user.
//
// The work is done by this very program, started again: [Main] must be called first thing in main.
package chroot

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// ErrUnsupported is the kind of error of a machine that cannot run commands in a tree.
var ErrUnsupported = errors.New("commands cannot run in a tree here")

// untouched says whether name is of a file system that the kernel makes.
func untouched(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return first == "proc" || first == "dev" || first == "sys"
}

// Merge makes t what now is: the state of [Root.Read] of the same tree. Times later than latest are
// set to it. It reports how many entries were made, changed or removed.
func Merge(t, now *image.Tree, latest time.Time) (int, error) {
	n := 0
	var gone []string
	for e := range t.All() {
		if untouched(e.Name) || isDevice(e) {
			continue
		}
		if _, err := now.Stat(e.Name); errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, e.Name)
		} else if err != nil {
			return n, err
		}
	}
	for _, name := range gone {
		if err := t.Remove(name); err == nil {
			n++
		} else if !errors.Is(err, fs.ErrNotExist) { // with its directory
			return n, err
		}
	}
	for e := range now.All() {
		if untouched(e.Name) || isDevice(e) {
			continue
		}
		changed, err := merge(t, now, e, latest)
		if err != nil {
			return n, err
		}
		if changed {
			n++
		}
	}
	return n, nil
}

func isDevice(e *image.Entry) bool { return e.Mode&fs.ModeDevice != 0 }

// merge makes one entry of t what it is in now.
func merge(t, now *image.Tree, e *image.Entry, latest time.Time) (bool, error) {
	want := *e
	if want.ModTime.After(latest) {
		want.ModTime = latest
	}
	have, err := t.Stat(e.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, err
	case have.HardLink == e.HardLink && have.Type() == e.Type() && have.Target == e.Target && have.Digest == e.Digest && have.Size == e.Size:
		if e.HardLink != "" || have.Mode == e.Mode && have.UID == e.UID && have.GID == e.GID && sameXattrs(have, e) &&
			have.ModTime.Equal(want.ModTime) {
			return false, nil
		}
		return true, t.SetMeta(e.Name, want.Mode, want.UID, want.GID, want.ModTime, want.Xattrs)
	case have.Type() != e.Type():
		if err := t.Remove(e.Name); err != nil {
			return false, err
		}
	}
	if !e.IsRegular() || e.HardLink != "" {
		return true, t.Put(want, nil)
	}
	f, err := now.Open(e.Name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return true, t.PutFrom(want, content(f))
}

func sameXattrs(a, b *image.Entry) bool {
	if len(a.Xattrs) != len(b.Xattrs) {
		return false
	}
	for name, value := range a.Xattrs {
		if other, ok := b.Xattrs[name]; !ok || string(other) != string(value) {
			return false
		}
	}
	return true
}

// content reads a file from its start.
func content(f image.File) io.Reader { return io.NewSectionReader(f, 0, f.Size()) }
