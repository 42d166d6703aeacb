package basetest

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed all:testdata/omnios
var omnios embed.FS

// Release is the first line of the OmniOS tree's /etc/release, without its margin.
const Release = "OmniOS v11 r151054"

// macros are the make variables of the manifests on x86. An action behind $(i386_ONLY) is there.
var macros = strings.NewReplacer("$(i386_ONLY)", "", "$(ARCH)", "i386", "$(ARCH32)", "i86", "$(ARCH64)", "amd64")

// An action is one line of a packaging manifest (pkg(7)): a kind and attributes.
type action struct {
	kind  string
	attrs map[string]string
}

// OmniOS writes the root of a non-global zone as an uncompressed archive, some 1,600 entries and
// 20 MB: sorted, with directories before what is in them and hard links after their target.
func OmniOS(w io.Writer) error {
	ids, err := readIDs()
	if err != nil {
		return err
	}
	headers := map[string]*tar.Header{}
	manifests, err := fs.Glob(omnios, "testdata/omnios/pkg/*.p5m")
	if err != nil {
		return err
	}
	for _, name := range manifests {
		data, err := omnios.ReadFile(name)
		if err != nil {
			return err
		}
		for _, a := range parseManifest(string(data)) {
			h, err := a.header(ids)
			if err != nil {
				return fmt.Errorf("%s: %q: %w", path.Base(name), a.attrs["path"], err)
			}
			if h != nil {
				headers[path.Clean(h.Name)] = h
			}
		}
	}
	content, err := shipped()
	if err != nil {
		return err
	}
	content["etc/release"] = []byte("  " + Release + "\n  Copyright (c) the authors.\n")
	content["etc/os-release"] = []byte("NAME=\"OmniOS\"\nPRETTY_NAME=\"OmniOS r151054\"\nID=omnios\nVERSION=r151054\nVERSION_ID=r151054\n")
	for name := range content {
		if headers[name] == nil {
			headers[name] = file(name, 0o644, ids["group:sys"], 0)
		}
	}
	for _, name := range slices.Collect(maps.Keys(headers)) {
		for _, up := range parents(name) {
			if headers[up] == nil {
				headers[up] = dir(up, 0o755, ids["group:bin"])
			}
		}
	}
	headers["."] = dir(".", 0o755, ids["group:root"])
	return writeTree(w, headers, content)
}

// writeTree writes the headers sorted, hard links last, with the content given or made up.
func writeTree(w io.Writer, headers map[string]*tar.Header, content map[string][]byte) error {
	names := slices.Sorted(maps.Keys(headers))
	isLink := func(name string) bool { return headers[name].Typeflag == tar.TypeLink }
	slices.SortStableFunc(names, func(a, b string) int {
		switch {
		case isLink(a) == isLink(b):
			return 0
		case isLink(a):
			return 1
		}
		return -1
	})
	tw := tar.NewWriter(w)
	for _, name := range names {
		h := headers[name]
		var data []byte
		if h.Typeflag == tar.TypeReg {
			if data = content[name]; data == nil {
				data = madeUp(name)
			}
			h.Size = int64(len(data))
		}
		if isLink(name) && headers[h.Linkname] == nil {
			continue // its target belongs to a package that is not here
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(data); err != nil {
			return err
		}
	}
	return tw.Close()
}

// parseManifest splits a manifest into its actions. Comments, includes and transforms are none.
func parseManifest(text string) []action {
	text = strings.ReplaceAll(text, "\\\n", " ")
	var actions []action
	for line := range strings.Lines(text) {
		line = macros.Replace(strings.TrimSpace(line))
		if line == "" || line[0] == '#' || line[0] == '<' {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		a := action{kind: kind, attrs: map[string]string{}}
		for _, word := range splitWords(rest) {
			if key, value, ok := strings.Cut(word, "="); ok {
				a.attrs[key] = value
			}
		}
		actions = append(actions, a)
	}
	return actions
}

// splitWords splits at spaces outside double quotes, and drops the quotes.
func splitWords(s string) []string {
	quoted := false
	words := strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ' ' || r == '\t')
	})
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], `"`, "")
	}
	return words
}

// header returns what the action installs in a non-global zone, or nil.
func (a action) header(ids map[string]int) (*tar.Header, error) {
	name := a.attrs["path"]
	if a.attrs["variant.opensolaris.zone"] == "global" {
		return nil, nil
	}
	if strings.Contains(name, "$(") {
		return nil, fmt.Errorf("unknown macro")
	}
	switch a.kind {
	case "link":
		return link(name, a.attrs["target"]), nil
	case "hardlink":
		return hardLink(name, path.Join(path.Dir(name), a.attrs["target"])), nil
	case "file", "dir":
	default:
		return nil, nil
	}
	h := dir(name, 0o755, 0)
	if a.kind == "file" {
		h = file(name, defaultMode(name), 0, 0)
	}
	var ok bool
	if h.Uid, ok = ids["user:"+or(a.attrs["owner"], "root")]; !ok {
		return nil, fmt.Errorf("owner %q", a.attrs["owner"])
	}
	if h.Gid, ok = ids["group:"+or(a.attrs["group"], "bin")]; !ok {
		return nil, fmt.Errorf("group %q", a.attrs["group"])
	}
	if m := a.attrs["mode"]; m != "" {
		mode, err := strconv.ParseInt(m, 8, 32)
		if err != nil {
			return nil, err
		}
		h.Mode = mode
	}
	if ts := a.attrs["timestamp"]; ts != "" {
		t, err := time.Parse("20060102T150405Z", ts)
		if err != nil {
			return nil, err
		}
		h.ModTime = t
	}
	return h, nil
}

// defaultMode is the mode of a file that names none, as the gate's transforms give it.
func defaultMode(name string) int64 {
	switch {
	case strings.Contains("/"+name, "/kernel/"), strings.Contains(name, ".so"):
		return 0o755
	case strings.HasPrefix(name, "usr/share/man/"), strings.HasPrefix(name, "lib/svc/manifest/"):
		return 0o444
	}
	return 0o644
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// readIDs returns the ids of the tree's own accounts as "user:root" and "group:sys".
func readIDs() (map[string]int, error) {
	ids := map[string]int{}
	for name, kind := range map[string]string{"passwd": "user:", "group": "group:"} {
		data, err := omnios.ReadFile("testdata/omnios/etc/" + name)
		if err != nil {
			return nil, err
		}
		s := bufio.NewScanner(bytes.NewReader(data))
		for s.Scan() {
			if f := strings.Split(s.Text(), ":"); len(f) > 2 {
				if ids[kind+f[0]], err = strconv.Atoi(f[2]); err != nil {
					return nil, fmt.Errorf("etc/%s: %w", name, err)
				}
			}
		}
	}
	return ids, nil
}

// shipped returns the files of /etc that illumos ships.
func shipped() (map[string][]byte, error) {
	content := map[string][]byte{}
	err := fs.WalkDir(omnios, "testdata/omnios/etc", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content[strings.TrimPrefix(p, "testdata/omnios/")], err = omnios.ReadFile(p)
		return err
	})
	return content, err
}

// madeUp returns content as a file of that name could have it: text for scripts and XML, else an
// ELF header before runs of noise and zeros, which compress about as programs do.
func madeUp(name string) []byte {
	seed := sha256.Sum256([]byte(name))
	r := rand.New(rand.NewChaCha8(seed))
	switch {
	case path.Ext(name) == ".xml":
		return fmt.Appendf(nil, "<?xml version=\"1.0\"?>\n<!-- %s -->\n", name)
	case strings.HasPrefix(name, "lib/svc/method/"), strings.HasPrefix(name, "etc/init.d/"):
		return fmt.Appendf(nil, "#!/sbin/sh\n# %s\nexit 0\n", name)
	case strings.HasPrefix(name, "etc/"), strings.HasPrefix(name, "var/"):
		return fmt.Appendf(nil, "# %s\n", name)
	}
	data := []byte("\x7fELF\x02\x01\x01\x06") // 64 bit, little endian, Solaris ABI
	for n := 1 + r.IntN(64); n > 0; n-- {
		run := make([]byte, 64+r.IntN(1024))
		if n%3 != 0 {
			for i := range run {
				run[i] = byte(r.Uint32())
			}
		}
		data = append(data, run...)
	}
	return data
}
