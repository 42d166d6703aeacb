// Package basetest makes real bases for tests and benchmarks: root file systems as archives.
//
//   - [OmniOS]: the tree that five packaging manifests of illumos describe, with their owners,
//     groups, modes and links, the shipped files of /etc and made-up content elsewhere.
//   - [Alpine]: a root around a static busybox, with a package database.
//   - [Debian]: what mmdebstrap makes of a list of packages, kept in the user's cache folder.
//   - [Odd]: everything an archive can hold that tools tend to get wrong.
//
// All but Debian depend on nothing but their arguments and give the same bytes every time.
//
// The files below testdata/omnios are illumos's own under the CDDL, as its LICENCE-CDDL-1.0 says;
// SOURCES.md there names where each comes from. They are test data and part of no program.
package basetest

import (
	"archive/tar"
	"path"
	"strings"
	"time"
)

// built is the time of what has none of its own: the day of the manifests' commit.
var built = time.Date(2024, 8, 23, 0, 0, 0, 0, time.UTC)

// dir returns the header of a directory.
func dir(name string, mode int64, gid int) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix(name, "/") + "/", Mode: mode, Gid: gid, ModTime: built}
}

// file returns the header of a regular file that holds n bytes.
func file(name string, mode int64, gid int, n int) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Gid: gid, Size: int64(n), ModTime: built}
}

// link returns the header of a symbolic link.
func link(name, target string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: built}
}

// hardLink returns the header of one more name of an entry before it.
func hardLink(name, first string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Mode: 0o755, ModTime: built}
}

// parents yields the directories above a name, the highest first.
func parents(name string) []string {
	var up []string
	for d := path.Dir(name); d != "." && d != "/"; d = path.Dir(d) {
		up = append([]string{d}, up...)
	}
	return up
}
