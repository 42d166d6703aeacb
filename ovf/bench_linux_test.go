package ovf

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// realDisk returns a disk with what a system is made of, in whole blocks as a file system puts it:
// that of ISC_DISK, or files of this machine.
func realDisk(b *testing.B) string {
	b.Helper()
	if name := os.Getenv("ISC_DISK"); name != "" {
		return name
	}
	name := filepath.Join(b.TempDir(), "disk.raw")
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const most = 192 << 20
	var size int64
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/etc", "/usr/lib", "/usr/share"} {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || size > most {
				return nil
			}
			data, err := os.ReadFile(path)
			if err != nil || len(data) > 4<<20 {
				return nil
			}
			f.WriteAt(data, size)
			size += (int64(len(data)) + 4095) &^ 4095
			return nil
		})
	}
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	return name
}

// cpu returns the processor time of this process or of its ended children.
func cpu(b *testing.B, who int) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRealVMDK compares with qemu-img, its digest not included and ours included:
// ISC_REAL=1 go test -run '^$' -bench RealVMDK -benchtime 1x ./ovf.
func BenchmarkRealVMDK(b *testing.B) {
	real(b, "qemu-img")
	disk := realDisk(b)
	f, err := os.Open(disk)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		b.Fatal(err)
	}
	out := filepath.Join(b.TempDir(), "out.vmdk")
	var peerCPU, peerWall, peerSize float64 // of one run
	report := func(b *testing.B, cpu, wall time.Duration) {
		b.Helper()
		z, err := os.Stat(out)
		if err != nil {
			b.Fatal(err)
		}
		n := float64(b.N)
		if peerCPU == 0 {
			peerCPU, peerWall, peerSize = cpu.Seconds()/n, wall.Seconds()/n, float64(z.Size())
		}
		b.ReportMetric(cpu.Seconds()/n, "cpu-s/op")
		b.ReportMetric(float64(z.Size()), "bytes")
		b.ReportMetric(cpu.Seconds()/n/peerCPU, "cpu/qemu")
		b.ReportMetric(wall.Seconds()/n/peerWall, "wall/qemu")
		b.ReportMetric(float64(z.Size())/peerSize, "size/qemu")
	}
	for _, name := range strings.Fields("qemu-img fast default small") {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(st.Size())
			who := syscall.RUSAGE_SELF
			if name == "qemu-img" {
				who = syscall.RUSAGE_CHILDREN
			}
			begin, start := cpu(b, who), time.Now()
			for range b.N {
				if name == "qemu-img" {
					cmd := exec.Command("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", disk, out)
					if err := cmd.Run(); err != nil {
						b.Fatal(err)
					}
					continue
				}
				level := map[string]Level{"fast": Fast, "default": Default, "small": Small}[name]
				w, err := os.Create(out)
				if err != nil {
					b.Fatal(err)
				}
				extents, err := FileExtents(f)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := WriteVMDK(b.Context(), w, Source{Content: f, Size: st.Size(), Extents: extents}, WriteOptions{Level: level}); err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
			report(b, cpu(b, who)-begin, time.Since(start))
		})
	}
}
