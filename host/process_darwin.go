package host

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// startTime returns p_starttime of the process; "" if it does not run.
func startTime(pid int) string {
	k, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%d.%06d", k.Proc.P_starttime.Sec, k.Proc.P_starttime.Usec)
}
