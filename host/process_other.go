//go:build unix && !linux && !darwin

package host

// startTime is not known here without running ps(1): a process is told by its number alone.
func startTime(int) string { return "" }
