// The importer of other people, in a module of its own: what it needs stays out of the programs.
module github.com/goldenisc/packer-plugin-isc/ovf/interop

go 1.26.0

require (
	github.com/goldenisc/packer-plugin-isc v0.0.0-00010101000000-000000000000
	github.com/vmware/govmomi v0.52.0
)

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/klauspost/compress v1.20.4 // indirect
	golang.org/x/text v0.44.0 // indirect
)

replace github.com/goldenisc/packer-plugin-isc => ../..
