package profiles

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// large returns a root of 15,000 entries, as a server has them, with the manifests of a system.
func large(t testing.TB, os string) *image.Tree {
	t.Helper()
	tree := violating(t, os)
	for i := range 120 {
		dir := fmt.Sprintf("usr/share/package-%d", i)
		put(t, tree, image.Entry{Name: dir, Mode: fs.ModeDir | 0o755, ModTime: old}, "")
		for j := range 110 {
			put(t, tree, image.Entry{Name: fmt.Sprintf("%s/file-%d", dir, j), Mode: 0o644, ModTime: old}, dir)
		}
	}
	for i := range 1500 {
		put(t, tree, image.Entry{Name: fmt.Sprintf("var/lib/package/info-%d.list", i), Mode: 0o644, ModTime: old}, "some\nlines\n")
	}
	for i := range 200 {
		name := fmt.Sprintf("lib/svc/manifest/network/service-%d.xml", i)
		put(t, tree, image.Entry{Name: name, Mode: 0o444, GID: illumosSys, ModTime: old}, fmt.Sprintf("%s<service_bundle type='manifest' name='s'>"+
			"<service name='network/service-%d' type='service' version='1'><create_default_instance enabled='true'/></service></service_bundle>", smfDocument, i))
	}
	return tree
}

// BenchmarkAudit is what auditing adds to a build.
func BenchmarkAudit(b *testing.B) {
	for _, os := range Platforms {
		b.Run(os, func(b *testing.B) {
			tree := large(b, os)
			s := baseline(b, os, nil)
			if err := Apply(tree, s, epoch); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := Audit(tree, s, today); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(os+"/apply", func(b *testing.B) {
			tree := large(b, os)
			s := baseline(b, os, nil)
			for b.Loop() {
				if err := Apply(tree, s, epoch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
