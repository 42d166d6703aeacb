package host

import (
	"errors"
	"io/fs"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// An object is what stat(2) says, as far as a check compares it.
type object struct {
	mode         fs.FileMode
	uid, gid     int
	size         int64
	stored       int64 // bytes that the content takes on disk
	mtime, ctime int64 // nanoseconds since 1970
	dev, ino     uint64
	nlink        uint64
	rdev         image.Device
}

var errNotRegular = errors.New("is not a regular file")
