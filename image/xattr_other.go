//go:build unix && !linux

package image

// An xattrReader finds none. Extended attributes are read on Linux only: those of FreeBSD and macOS
// are of other name spaces, those of illumos are directories.
type xattrReader struct{}

func (*xattrReader) fd(int) (map[string][]byte, error)               { return nil, nil }
func (*xattrReader) at(int, string) (map[string][]byte, bool, error) { return nil, true, nil }
