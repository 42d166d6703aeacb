//go:build solaris || illumos

package image

// deviceOf splits a device number as makedev(3C) does in 64 bits; illumos builds this file too.
func deviceOf(dev uint64) Device { return Device{Major: uint32(dev >> 32), Minor: uint32(dev)} }
