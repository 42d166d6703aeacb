//go:build !unix

package remote

import "os"

func signalName(*os.ProcessState) string { return "" }
