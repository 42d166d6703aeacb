//go:build linux

// Guest is what runs in the machines of the tests: a web service that tells what it sees, or, as
// process 1, a program that tells it on the console and switches the machine off.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// State is what the guest sees.
type State struct {
	Mounts  string            // /proc/mounts
	Swaps   string            // /proc/swaps
	Mapped  map[string]string // uuid by name, of the device mapper
	Verity  string            // V as long as no bad block was seen
	Writes  map[string]string // the error of writing to a directory, or empty
	Exists  map[string]bool   // files that a run before may have left
	Machine string
	Content map[string]string // SHA-256 of the test's files, or the error of reading them
}

// places are where files are written, marks what is in them.
var places = []string{"/", "/etc", "/var", "/var/lib", "/usr/bin", "/tmp", "/run", "/scratch", "/data"}

const mark = "isc-guest-mark-in-clear "

func look() State {
	s := State{Mapped: map[string]string{}, Writes: map[string]string{}, Exists: map[string]bool{}, Content: map[string]string{}}
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(string(b))
	}
	s.Mounts, s.Swaps, s.Machine = read("/proc/mounts"), read("/proc/swaps"), read("/etc/machine-id")
	names, _ := filepath.Glob("/sys/block/dm-*/dm/name")
	for _, n := range names {
		s.Mapped[read(n)] = read(filepath.Join(filepath.Dir(n), "uuid"))
	}
	s.Verity = status("root") // before what may be damaged is read
	contents, _ := filepath.Glob("/usr/lib/isc/[bh]*")
	for _, name := range contents {
		s.Content[name] = digest(name)
	}
	for _, dir := range places {
		name := filepath.Join(dir, "left-behind")
		_, err := os.Stat(name)
		s.Exists[dir] = err == nil
		if err := os.WriteFile(name, []byte(strings.Repeat(mark, 40000)), 0o600); err != nil {
			s.Writes[dir] = err.Error()
		} else {
			s.Writes[dir] = ""
		}
	}
	unix.Sync()
	return s
}

// status asks the device mapper for the state of a target.
func status(name string) string {
	f, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	buf := make([]byte, 4096)
	h := (*unix.DmIoctl)(unsafe.Pointer(&buf[0]))
	h.Version, h.Data_size, h.Data_start = [3]uint32{4, 0, 0}, uint32(len(buf)), unix.SizeofDmIoctl
	copy(h.Name[:], name)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.DM_TABLE_STATUS, uintptr(unsafe.Pointer(h))); e != 0 {
		return e.Error()
	}
	text, _, _ := strings.Cut(string(buf[h.Data_start+unix.SizeofDmTargetSpec:]), "\x00")
	return text
}

func off() {
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// digest returns the SHA-256 of a file, or the error of reading it.
func digest(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err.Error()
	}
	return hex.EncodeToString(h.Sum(nil))
}

func main() {
	if os.Getpid() == 1 {
		s := look()
		b, err := json.Marshal(s)
		if err != nil {
			b = []byte(err.Error())
		}
		console, err := os.OpenFile("/dev/console", os.O_WRONLY, 0)
		if err == nil {
			fmt.Fprintf(console, "\nguest-state: %s\n", b)
			syscall.Syscall(unix.SYS_IOCTL, console.Fd(), unix.TCSBRK, 1) // drain
		}
		off()
		select {}
	}
	http.HandleFunc("/state", func(w http.ResponseWriter, _ *http.Request) { json.NewEncoder(w).Encode(look()) })
	http.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, digest(r.FormValue("name"))) })
	http.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, status("root")) })
	http.HandleFunc("/off", func(http.ResponseWriter, *http.Request) { off() })
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":80", nil))
	os.Exit(1)
}
