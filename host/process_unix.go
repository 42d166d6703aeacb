//go:build unix

package host

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// The process leads a group of its own, all of which is told.
func terminate(pid int) error { return unix.Kill(-pid, unix.SIGTERM) }
func kill(pid int) error      { return unix.Kill(-pid, unix.SIGKILL) }

func running(pid int) bool {
	err := unix.Kill(pid, 0)
	return err == nil || err == unix.EPERM
}
