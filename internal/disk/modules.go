package disk

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxModules bounds each of the files that describe modules, maxModule a module, in bytes.
const (
	maxModules = 64 << 20
	maxModule  = 128 << 20
)

// A moduleIndex is what depmod(8) knows of a kernel's modules. Names have underscores.
type moduleIndex struct {
	files   map[string]string   // file by name, relative to the directory of the modules
	deps    map[string][]string // names, in the order of loading
	soft    map[string][]string // names or aliases to load before
	builtin map[string]bool
	aliases []alias
	exact   map[string][]string // the modules of aliases without wildcards
}

// An alias leads to a module: a name that the kernel asks for, or a pattern of devices.
type alias struct{ pattern, module string }

// moduleName returns the name of a module's file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return underscored(name)
}

func underscored(name string) string { return strings.ReplaceAll(name, "-", "_") }

// parseModules reads modules.dep, modules.softdep, modules.builtin and modules.alias (modules.dep(5),
// modprobe.d(5)). Lines that say something else are left out, as modprobe does.
func parseModules(dep, softdep, builtin, aliases []byte) *moduleIndex {
	x := &moduleIndex{
		files: map[string]string{}, deps: map[string][]string{}, soft: map[string][]string{},
		builtin: map[string]bool{}, exact: map[string][]string{},
	}
	for line := range lines(dep) {
		file, rest, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		name := moduleName(file)
		x.files[name] = file
		needs := strings.Fields(rest)
		slices.Reverse(needs) // what is needed first stands last
		for _, n := range needs {
			x.deps[name] = append(x.deps[name], moduleName(n))
		}
	}
	for line := range lines(softdep) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "softdep" {
			continue
		}
		name, pre := underscored(f[1]), false
		for _, word := range f[2:] {
			switch word {
			case "pre:":
				pre = true
			case "post:":
				pre = false
			default:
				if pre {
					x.soft[name] = append(x.soft[name], word)
				}
			}
		}
	}
	for line := range lines(builtin) {
		if strings.Contains(line, ".ko") {
			x.builtin[moduleName(line)] = true
		}
	}
	for line := range lines(aliases) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "alias" {
			continue
		}
		a := alias{f[1], underscored(f[2])}
		x.aliases = append(x.aliases, a)
		if !strings.ContainsAny(a.pattern, "*?[") {
			x.exact[underscored(a.pattern)] = append(x.exact[underscored(a.pattern)], a.module)
		}
	}
	return x
}

// lines yields trimmed lines that are neither empty nor comments.
func lines(b []byte) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for line := range bytes.Lines(b) {
			text := string(bytes.TrimSpace(line))
			if text != "" && text[0] != '#' && !yield(text) {
				return
			}
		}
	}
}

// has reports whether the kernel has a module, built in or not.
func (x *moduleIndex) has(name string) bool { return x.builtin[name] || x.files[name] != "" }

// load appends what must be loaded for the module to a list, itself last: nothing if it is built in
// or there already.
func (x *moduleIndex) load(list []string, name string) []string {
	return x.visit(list, name, map[string]bool{})
}

// visit is load without the modules on the way: soft dependencies may go in circles.
func (x *moduleIndex) visit(list []string, name string, way map[string]bool) []string {
	if way[name] || x.builtin[name] || x.files[name] == "" || slices.Contains(list, name) {
		return list
	}
	way[name] = true
	for _, s := range x.soft[name] {
		targets := []string{underscored(s)}
		if !x.has(targets[0]) {
			targets = x.exact[targets[0]]
		}
		for _, t := range targets {
			list = x.visit(list, t, way)
		}
	}
	for _, d := range x.deps[name] {
		list = x.visit(list, d, way)
	}
	return append(list, name)
}

// expand returns the content of a module's file, as insmod(8) of any kernel takes it.
func expand(name string, data []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch path.Ext(name) {
	case ".ko":
		return data, nil
	case ".xz":
		r, err = xz.NewReader(bufio.NewReader(bytes.NewReader(data)))
	case ".gz":
		r, err = gzip.NewReader(bytes.NewReader(data))
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		return nil, fmt.Errorf("module %q: its compression is not known", name)
	}
	if err == nil {
		data, err = io.ReadAll(io.LimitReader(r, maxModule+1))
	}
	if err != nil {
		return nil, fmt.Errorf("module %q: %w", name, err)
	}
	if len(data) > maxModule {
		return nil, fmt.Errorf("module %q: more than %d bytes", name, maxModule)
	}
	return data, nil
}
