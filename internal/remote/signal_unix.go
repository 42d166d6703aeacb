//go:build unix

package remote

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalName is the name, without SIG, of the signal that ended a process.
func signalName(p *os.ProcessState) string {
	if w, ok := p.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		if name := unix.SignalName(w.Signal()); len(name) > 3 {
			return name[3:]
		}
	}
	return ""
}
