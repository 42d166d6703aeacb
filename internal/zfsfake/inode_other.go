//go:build !unix

package zfsfake

import "io/fs"

func inode(fs.FileInfo) any { return nil }
