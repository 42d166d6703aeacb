//go:build !linux

package registry

import "os"

// startWriteback does nothing: there is no such call here.
func startWriteback(*os.File, int64, int64) {}
