//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// A usage is what a command and all processes it waited for took.
type usage struct {
	wall   time.Duration
	cpu    time.Duration
	memory int64 // the largest resident set of one of the processes, bytes
	size   int64 // of the output, bytes
}

// timed runs a command.
func timed(cmd *exec.Cmd) (usage, error) {
	start := time.Now()
	err := cmd.Run()
	u := usage{wall: time.Since(start)}
	if err != nil {
		return u, err
	}
	r := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	u.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	u.memory = r.Maxrss << 10 // getrusage(2): kilobytes
	return u, nil
}

func wall(u usage) float64   { return u.wall.Seconds() }
func cpu(u usage) float64    { return u.cpu.Seconds() }
func memory(u usage) float64 { return float64(u.memory) }

func sorted(all []usage, of func(usage) float64) []float64 {
	v := make([]float64, len(all))
	for i, u := range all {
		v[i] = of(u)
	}
	slices.Sort(v)
	return v
}

func median(all []usage, of func(usage) float64) float64 { return sorted(all, of)[len(all)/2] }

func least(all []usage, of func(usage) float64) float64 { return sorted(all, of)[0] }

func megabytes(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

func processors() int { return runtime.GOMAXPROCS(0) }
