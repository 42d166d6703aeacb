package host

import (
	"bytes"
	"os"
	"strconv"
)

// startTime returns the field starttime of proc_pid_stat(5), in ticks since boot; "" if the
// process does not run, or is a zombie.
func startTime(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The second field is a name in parentheses, which may hold anything.
	f := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(f) < 20 || f[0][0] == 'Z' {
		return ""
	}
	return string(f[19])
}
