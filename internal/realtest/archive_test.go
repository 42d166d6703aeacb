//go:build linux

package realtest

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// recipes are the images whose archives are extracted: every base, compression and dialect. What
// ustar-strict refuses, such as extended attributes, is only in pax.
var recipes = []recipe{
	{"debian", "zstd", "pax"},
	{"odd", "none", "pax"},
	{"odd", "gzip", "pax"},
	{"odd", "zstd", "pax"},
	{"alpine", "gzip", "pax"},
	{"omnios", "gzip", "pax"},
	{"omnios", "none", "ustar-strict"},
	{"omnios", "gzip", "ustar-strict"},
}

// TestRealArchive extracts the zone archive with GNU tar and bsdtar, compares what lies there with the
// content manifest, and lets two mtree programs do the same.
func TestRealArchive(t *testing.T) {
	for _, r := range recipes {
		t.Run(r.String(), func(t *testing.T) {
			archive, content := r.export(t, "zone"), r.content(t)
			mtree := r.export(t, "content")
			for _, tool := range []struct {
				name string
				args []string
			}{
				{"tar", []string{"--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"}},
				{"bsdtar", []string{"--numeric-owner", "--xattrs", "-xpf"}},
			} {
				t.Run(tool.name, func(t *testing.T) {
					dir := filepath.Join(t.TempDir(), "root")
					if err := os.Mkdir(dir, 0o755); err != nil {
						t.Fatal(err)
					}
					run(t, dir, tool.name, append(tool.args, archive)...)
					if tool.name == "bsdtar" {
						// It never restores the time of the folder it extracts into.
						if err := os.Chtimes(dir, time.Time{}, content.Lookup(".").ModTime); err != nil {
							t.Fatal(err)
						}
					}
					compare(t, dir, content)
					t.Run("mtree", func(t *testing.T) { run(t, dir, "mtree", "-f", mtree, "-p", dir) })
					t.Run("gomtree", func(t *testing.T) { run(t, dir, "gomtree", gomtree(mtree, dir)...) })
				})
			}
		})
	}
}

// TestRealMtreeFindsDrift proves that the mtree programs compare at all.
func TestRealMtreeFindsDrift(t *testing.T) {
	r := recipe{"omnios", "gzip", "pax"}
	archive, mtree := r.export(t, "zone"), r.export(t, "content")
	for name, tamper := range map[string]func(root string) error{
		"content": func(root string) error {
			return os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root::0:0::/:\n"), 0o644)
		},
		"mode":    func(root string) error { return os.Chmod(filepath.Join(root, "etc/shadow"), 0o644) },
		"missing": func(root string) error { return os.Remove(filepath.Join(root, "etc/pam.conf")) },
		"extra":   func(root string) error { return os.WriteFile(filepath.Join(root, "etc/extra"), nil, 0o644) },
		"link":    func(root string) error { return relink(filepath.Join(root, "bin"), "tmp") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "root")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			run(t, dir, "tar", "--numeric-owner", "-xpf", archive)
			if err := tamper(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := try(t, dir, "mtree", "-f", mtree, "-p", dir); err == nil {
				t.Error("mtree finds nothing")
			}
			if _, err := try(t, dir, "gomtree", gomtree(mtree, dir)...); err == nil {
				t.Error("gomtree finds nothing")
			}
		})
	}
}

// gomtree returns the arguments to check a folder with. Of the keywords we write it lacks device.
func gomtree(manifest, dir string) []string {
	return []string{"validate", "-k", "type,mode,uid,gid,nlink,size,time,link,sha256digest", "-f", manifest, "-p", dir}
}

func relink(name, target string) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	return os.Symlink(target, name)
}
