//go:build unix

package zfsfake

import (
	"io/fs"
	"syscall"
)

// inode tells the names of one object from others; nil if it has one only.
func inode(info fs.FileInfo) any {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		return st.Ino
	}
	return nil
}
