//go:build unix && !linux

package image

// Extended attributes are read on Linux only: those of FreeBSD and macOS are of other name spaces,
// those of illumos are directories.
func fdXattrs(int) (map[string][]byte, error)           { return nil, nil }
func pathXattrs(int, string) (map[string][]byte, error) { return nil, nil }
