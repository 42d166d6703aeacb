//go:build linux || freebsd || darwin || solaris || illumos

package ovf

import (
	"errors"
	"io"
	"os"
	"runtime"
	"syscall"
)

// FileExtents returns the parts of a file that are not holes, as lseek(2) tells them. Where the
// system or the file system cannot tell, that is the whole file. It moves the file's offset.
func FileExtents(f *os.File) ([]Extent, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	data, hole := 3, 4 // SEEK_DATA and SEEK_HOLE
	if runtime.GOOS == "darwin" {
		data, hole = hole, data
	}
	extents := []Extent{}
	for at := int64(0); at < size; {
		begin, err := f.Seek(at, data)
		if errors.Is(err, syscall.ENXIO) { // a hole up to the end
			break
		}
		if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
			return []Extent{{0, size}}, nil
		}
		if err != nil {
			return nil, err
		}
		end, err := f.Seek(begin, hole)
		if err != nil {
			return nil, err
		}
		begin, end = min(begin, size), min(end, size) // a file may grow
		if end <= at {
			break
		}
		extents = append(extents, Extent{begin, end - begin})
		at = end
	}
	return extents, nil
}
