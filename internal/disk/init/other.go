//go:build !linux

// Init is the first program of a guest that package disk makes. It runs on Linux alone.
package main

func main() {}
