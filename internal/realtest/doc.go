// Package realtest holds the tests against the programs of other people: what we write, they read.
//
// The tests drive the built program that the variable ISCADM names, as a user would, and run when
// ISC_REAL is set (make test-real sets both and installs the programs). Then a program that is
// missing is a failure. They take root, as owners, devices and capabilities are part of what is
// compared.
package realtest
