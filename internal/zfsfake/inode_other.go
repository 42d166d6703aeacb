//go:build !unix

package zfsfake

import "io/fs"

func inode(fs.FileInfo) any { return nil }

func chown(string, int, int) error { return nil }

func owner(fs.FileInfo) (uid, gid int) { return 0, 0 }
