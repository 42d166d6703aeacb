// Controls writes docs/controls.md from the catalogue of package profiles; go generate runs it.
package main

import (
	"flag"
	"log"
	"os"

	"github.com/goldenisc/packer-plugin-isc/profiles"
)

func main() {
	log.SetFlags(0)
	out := flag.String("o", "docs/controls.md", "write to `FILE`")
	flag.Parse()
	if err := os.WriteFile(*out, profiles.Markdown(), 0o644); err != nil {
		log.Fatal(err)
	}
}
