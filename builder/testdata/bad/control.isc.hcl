image {
	name = "[31mweb\u0007"
	version = "1"
	os = "linux"
	arch = "amd64"
}
base { source = "tra:/x.tar" }
zone {}
