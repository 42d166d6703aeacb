//go:build linux

// Init is the first program of a guest that package disk makes. It is process 1 of the initrd: it
// loads the modules it finds beside it, waits for the disk, sets up the verified root and what is
// encrypted, and hands over to the root's own init. It needs nothing from the root but that.
//
// It takes its orders from the kernel's command line, which stands in the same signed or verified
// image as itself:
//
//	isc.root=GUID                              the partition of the root
//	isc.verity=BLOCKS:SALT:HASH:GUID           of 4096 bytes, and the partition of the hash tree
//	isc.corrupt=restart|panic                  what a bad block leads to, instead of an error
//	isc.swap=GUID isc.scratch=GUID             encrypted with new keys
//	isc.data=GUID:PATH                         kept; made into a file system if it is all zeros
//	isc.second                                 those three are on another disk
//	isc.etc=tmpfs|overlay|scratch  isc.var=…   what can be written of them
//	init=PATH                                  default /sbin/init
//
// Whatever goes wrong is told on the console, and the machine is switched off.
package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	runtime.LockOSThread() // the keys are in this thread's keyring
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this is the first program of a virtual machine: it runs nowhere else")
		os.Exit(1)
	}
	defer func() {
		if r := recover(); r != nil {
			fatal(fmt.Errorf("%v", r))
		}
	}()
	fatal(run())
}

// fatal ends the machine: process 1 must not return.
func fatal(err error) {
	say(2, "FATAL %v", err)
	time.Sleep(2 * time.Second)
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	for {
		time.Sleep(time.Hour)
	}
}

var kmsg *os.File

// say logs to the kernel's ring, which has the console; levels are those of syslog(3).
func say(level int, format string, args ...any) {
	line := fmt.Sprintf("<%d>isc: "+format+"\n", append([]any{level}, args...)...)
	if kmsg != nil {
		kmsg.WriteString(line)
		return
	}
	os.Stderr.WriteString(line[3:])
}

const sysroot = "/sysroot"

func run() error {
	for _, m := range []struct {
		kind, at, options string
		flags             uintptr
	}{
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "mode=0755,size=20%", unix.MS_NOSUID | unix.MS_NODEV},
	} {
		// The kernel may have mounted devtmpfs itself.
		if err := unix.Mount(m.kind, m.at, m.kind, m.flags, m.options); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	kmsg, _ = os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	c, err := parseCmdline(string(text))
	if err != nil {
		return err
	}
	m, err := readModules()
	if err != nil {
		return err
	}
	m.loadBase()
	d, err := findDisks(c, m)
	if err != nil {
		return err
	}
	if err := mountRoot(c, d); err != nil {
		return err
	}
	if err := mountRest(c, d); err != nil {
		return err
	}
	return handOver(c)
}

// mountRoot sets up verity and mounts the root.
func mountRoot(c *cmdline, d *disks) error {
	v := c.verity
	table := fmt.Sprintf("1 %s %s 4096 4096 %d 1 sha256 %s %s", d.root, d.hash, v.blocks, v.root, v.salt)
	switch c.corrupt {
	case "restart":
		table += " 2 ignore_zero_blocks restart_on_corruption"
	case "panic":
		table += " 2 ignore_zero_blocks panic_on_corruption"
	default:
		table += " 1 ignore_zero_blocks"
	}
	dev, err := mapDevice("root", "CRYPT-VERITY-isc-root", "verity", v.blocks*8, table, true)
	if err != nil {
		return err
	}
	if err := unix.Mount(dev, sysroot, "erofs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount root: %w", err)
	}
	say(5, "root verified by %s", v.root)
	return nil
}

// mountRest sets up swap, scratch, data and what can be written.
func mountRest(c *cmdline, d *disks) error {
	if d.swap != "" {
		dev, sectors, err := mapCrypt("swap", d.swap)
		if err != nil {
			return err
		}
		if err := swapOn(dev, sectors); err != nil {
			return fmt.Errorf("swap: %w", err)
		}
	}
	if d.scratch != "" {
		dev, sectors, err := mapCrypt("scratch", d.scratch)
		if err != nil {
			return err
		}
		if err := formatDevice(dev, sectors, false, top{mode: 0o1777}); err != nil {
			return fmt.Errorf("scratch: %w", err)
		}
		at := sysroot + "/scratch"
		if err := unix.Mount(dev, at, "ext4", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "noinit_itable"); err != nil {
			return fmt.Errorf("mount scratch: %w", err)
		}
		os.Remove(at + "/lost+found")
	}
	fstab, _ := os.ReadFile(sysroot + "/etc/fstab")
	flags, options := tmpOptions(string(fstab))
	if err := unix.Mount("tmpfs", sysroot+"/tmp", "tmpfs", flags, options); err != nil {
		return fmt.Errorf("mount /tmp: %w", err)
	}
	// The root says whose the data is, before anything is mounted over it; the data may be below /var,
	// so it is mounted last.
	var st unix.Stat_t
	if d.data != "" {
		if err := unix.Stat(sysroot+c.dataPath, &st); err != nil {
			return fmt.Errorf("data: %s: %w", c.dataPath, err)
		}
	}
	for _, w := range []struct{ dir, how string }{{"var", c.vari}, {"etc", c.etc}} {
		if err := makeWritable(w.dir, w.how); err != nil {
			return fmt.Errorf("/%s: %w", w.dir, err)
		}
	}
	if d.data != "" {
		if err := mountData(d.data, sysroot+c.dataPath, top{st.Uid, st.Gid, uint16(st.Mode & 0o7777)}); err != nil {
			return fmt.Errorf("data: %w", err)
		}
	}
	return nil
}

// tmpOptions returns how /tmp is mounted: in memory, with what fstab(5) asks for besides.
func tmpOptions(fstab string) (flags uintptr, options string) {
	flags, options = unix.MS_NOSUID|unix.MS_NODEV, "mode=1777,size=50%"
	for line := range strings.Lines(fstab) {
		f := strings.Fields(line)
		if len(f) < 4 || strings.HasPrefix(f[0], "#") || f[1] != "/tmp" || f[2] != "tmpfs" {
			continue
		}
		for o := range strings.SplitSeq(f[3], ",") {
			switch name, _, _ := strings.Cut(o, "="); name {
			case "noexec":
				flags |= unix.MS_NOEXEC
			case "size", "nr_inodes":
				options += "," + o // the last counts
			}
		}
	}
	return flags, options
}

// makeWritable mounts something over a directory of the root.
func makeWritable(dir, how string) error {
	at := path.Join(sysroot, dir)
	upper := ""
	switch how {
	case "":
		return nil
	case "tmpfs":
		return unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=20%")
	case "overlay":
		upper = path.Join("/run/isc", dir)
	case "scratch":
		upper = path.Join(sysroot, "scratch/.isc", dir)
	default:
		return fmt.Errorf("%q is no way to write", how)
	}
	if err := os.MkdirAll(upper+"/work", 0o700); err != nil {
		return err
	}
	// The upper directory's own attributes become those of the mount.
	var st unix.Stat_t
	if err := unix.Stat(at, &st); err != nil {
		return err
	}
	if err := os.Mkdir(upper+"/upper", 0o700); err != nil {
		return err
	}
	if err := os.Chown(upper+"/upper", int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(upper+"/upper", st.Mode&0o7777); err != nil {
		return err
	}
	options := "lowerdir=" + at + ",upperdir=" + upper + "/upper,workdir=" + upper + "/work"
	return unix.Mount("overlay", at, "overlay", unix.MS_NODEV, options)
}

// mountData mounts the data that is kept, and makes the file system at the first start: one that
// belongs to whom the directory in the root does.
func mountData(dev, at string, t top) error {
	f, err := os.Open(dev)
	if err != nil {
		return err
	}
	head := make([]byte, 1<<20)
	_, err = f.ReadAt(head, 0)
	f.Close()
	if err != nil {
		return err
	}
	if fresh(head) {
		sectors, err := deviceSectors(dev)
		if err != nil {
			return err
		}
		if err := formatDevice(dev, sectors, true, t); err != nil {
			return err
		}
		say(5, "data: made a file system")
	}
	if err := os.MkdirAll(at, 0o755); err != nil { // in a /var that is empty
		return err
	}
	// A file system that is not ours is not touched: the mount fails.
	return unix.Mount(dev, at, "ext4", unix.MS_NOSUID|unix.MS_NODEV, "noinit_itable")
}

// handOver makes the root the root, and its init this process.
func handOver(c *cmdline) error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := unix.Mount(dir, sysroot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	// The initrd stays in memory as long as it has files.
	os.Remove("/init")
	os.RemoveAll("/modules")
	if err := unix.Chdir(sysroot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	say(5, "starting %s", c.init)
	env := []string{"TERM=linux", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return fmt.Errorf("exec %s: %w", c.init, unix.Exec(c.init, []string{c.init}, env))
}

// A cmdline is what the kernel's command line says to us.
type cmdline struct {
	root, swap, scratch, data string // GUIDs in lower case
	dataPath                  string
	second                    bool
	verity                    struct {
		blocks           int64
		salt, root, hash string
	}
	corrupt, vari, etc, init string
}

// parseCmdline takes what is ours; the last of several counts.
func parseCmdline(text string) (*cmdline, error) {
	c := &cmdline{init: "/sbin/init"}
	seen := map[string]bool{}
	for word := range strings.FieldsSeq(text) {
		name, value, _ := strings.Cut(word, "=")
		if seen[name] {
			continue // the first counts: boot stubs append what they find beside the kernel
		}
		seen[name] = true
		switch name {
		case "isc.root":
			c.root = strings.ToLower(value)
		case "isc.swap":
			c.swap = strings.ToLower(value)
		case "isc.scratch":
			c.scratch = strings.ToLower(value)
		case "isc.data":
			id, dir, ok := strings.Cut(value, ":")
			if !ok || !strings.HasPrefix(dir, "/") || path.Clean(dir) != dir {
				return nil, fmt.Errorf("malformed %q", word)
			}
			c.data, c.dataPath = strings.ToLower(id), dir
		case "isc.second":
			c.second = true
		case "isc.verity":
			f := strings.Split(value, ":")
			if len(f) != 4 {
				return nil, fmt.Errorf("malformed %q", word)
			}
			if _, err := fmt.Sscanf(f[0], "%d", &c.verity.blocks); err != nil || c.verity.blocks <= 0 {
				return nil, fmt.Errorf("malformed %q", word)
			}
			c.verity.salt, c.verity.root, c.verity.hash = f[1], f[2], strings.ToLower(f[3])
		case "isc.corrupt":
			c.corrupt = value
		case "isc.var":
			c.vari = value
		case "isc.etc":
			c.etc = value
		case "init":
			c.init = value
		}
	}
	if c.root == "" || c.verity.root == "" {
		return nil, errors.New("the command line names no verified root")
	}
	return c, nil
}
