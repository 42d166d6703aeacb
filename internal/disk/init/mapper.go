//go:build linux

package main

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapDevice makes a device of the device mapper with one target, and returns its node.
func mapDevice(name, uuid, target string, sectors int64, params string, readOnly bool) (string, error) {
	ctl, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	defer ctl.Close()
	call := func(op uintptr, flags uint32, spec []byte) (*unix.DmIoctl, error) {
		buf := make([]byte, max(unix.SizeofDmIoctl+len(spec), 16<<10))
		h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
		h.Version = [3]uint32{4, 0, 0}
		h.Data_size = uint32(len(buf))
		h.Data_start = unix.SizeofDmIoctl
		h.Flags = flags
		copy(h.Name[:], name)
		if op == unix.DM_DEV_CREATE {
			copy(h.Uuid[:], uuid)
		}
		if spec != nil {
			h.Target_count = 1
			copy(buf[unix.SizeofDmIoctl:], spec)
		}
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, ctl.Fd(), op, uintptr(unsafe.Pointer(h))); e != 0 {
			return nil, fmt.Errorf("device %s: %w", name, e)
		}
		return h, nil
	}
	made, err := call(unix.DM_DEV_CREATE, 0, nil)
	if err != nil {
		return "", err
	}
	spec := make([]byte, unix.SizeofDmTargetSpec, unix.SizeofDmTargetSpec+len(params)+8)
	binary.NativeEndian.PutUint64(spec[8:], uint64(sectors))
	copy(spec[24:40], target)
	spec = append(append(spec, params...), 0)
	for len(spec)%8 != 0 {
		spec = append(spec, 0)
	}
	binary.NativeEndian.PutUint32(spec[20:], uint32(len(spec)))
	flags := uint32(unix.DM_SECURE_DATA_FLAG)
	if readOnly {
		flags |= unix.DM_READONLY_FLAG
	}
	if _, err := call(unix.DM_TABLE_LOAD, flags, spec); err != nil {
		return "", fmt.Errorf("%w: is the target %s there?", err, target)
	}
	if _, err := call(unix.DM_DEV_SUSPEND, 0, nil); err != nil { // which resumes
		return "", err
	}
	node := fmt.Sprintf("dm-%d", unix.Minor(made.Dev))
	if err := os.Symlink("../"+node, "/dev/mapper/"+name); err != nil {
		return "", err
	}
	return "/dev/" + node, nil
}

// deviceSectors returns the size of a device in 512 bytes.
func deviceSectors(dev string) (int64, error) {
	f, err := os.Open(dev)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := f.Seek(0, 2)
	return n / 512, err
}

// mapCrypt encrypts a device with a key that goes to the kernel and nowhere else: neither user space
// nor the next start can read it.
func mapCrypt(name, dev string) (string, int64, error) {
	sectors, err := deviceSectors(dev)
	if err != nil {
		return "", 0, err
	}
	key := make([]byte, 64) // AES-256-XTS
	for n := 0; n < len(key); {
		k, err := unix.Getrandom(key[n:], 0) // waits until there is randomness
		if err != nil && err != unix.EINTR {
			return "", 0, fmt.Errorf("key of %s: %w", name, err)
		}
		n += max(k, 0)
	}
	id, err := unix.AddKey("logon", "isc:"+name, key, unix.KEY_SPEC_THREAD_KEYRING)
	clear(key)
	if err != nil {
		return "", 0, fmt.Errorf("key of %s: %w", name, err)
	}
	table := fmt.Sprintf("aes-xts-plain64 :64:logon:isc:%s 0 %s 0 2 allow_discards sector_size:4096", name, dev)
	node, err := mapDevice(name, "CRYPT-PLAIN-"+name, "crypt", sectors&^7, table, false)
	if _, e := unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0); err == nil && e != nil {
		err = fmt.Errorf("revoke the key of %s: %w", name, e)
	}
	return node, sectors &^ 7, err
}

// swapOn writes the header of mkswap(8) and starts swapping.
func swapOn(dev string, sectors int64) error {
	page := int64(os.Getpagesize())
	b := make([]byte, page)
	id := sha256.Sum256([]byte("isc swap"))
	binary.NativeEndian.PutUint32(b[1024:], 1)
	binary.NativeEndian.PutUint32(b[1028:], uint32(min(sectors*512/page-1, 1<<32-1)))
	copy(b[1036:1052], id[:16])
	copy(b[page-10:], "SWAPSPACE2")
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if e := f.Sync(); err == nil {
		err = e
	}
	f.Close()
	if err != nil {
		return err
	}
	p, err := unix.BytePtrFromString(dev)
	if err != nil {
		return err
	}
	const discard = 0x10000
	if _, _, e := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(p)), discard, 0); e != 0 {
		return e
	}
	return nil
}

// formatDevice makes a file system on a device.
func formatDevice(dev string, sectors int64, journal bool, t top) error {
	f, err := os.OpenFile(dev, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	id := make([]byte, 16)
	if _, err = unix.Getrandom(id, 0); err == nil {
		err = format(f, sectors*512, [16]byte(id), journal, t)
	}
	if e := f.Sync(); err == nil {
		err = e
	}
	f.Close()
	return err
}
