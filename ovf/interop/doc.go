// Package interop imports what package ovf writes with the library that vSphere's own tools are
// made of, into its simulator, in process. It is a module of its own, so that what that needs stays
// out of the programs. Run it in this folder: go test .
package interop
