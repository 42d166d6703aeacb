// Package flock takes exclusive locks of files: flock(2), where a system has it, fcntl(2) on
// Solaris, LockFileEx on Windows. A killed process gives up its locks.
package flock
