package adopt

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
)

// Bounds of what is looked at.
const (
	maxLibraries = 500
	maxProgram   = image.MaxRead
	maxOwned     = 64 << 20 // of a package's list of files, in bytes
)

// file notes a file of the service, once.
func (a *adopter) file(name, why string) {
	if !slices.ContainsFunc(a.out.Files, func(f AdoptedFile) bool { return f.Path == name }) {
		a.out.Files = append(a.out.Files, AdoptedFile{Path: name, Why: why})
	}
}

// files finds the program, what it is linked with, what its command line names, and what usually
// belongs to a service of that name.
func (a *adopter) files() error {
	argv := strings.Fields(a.out.Service.Exec)
	e, err := a.stat(strings.TrimPrefix(argv[0], "/"))
	switch {
	case err != nil:
		return err
	case e == nil:
		a.notef("exec: %q is not there", argv[0])
	default:
		a.file(argv[0], "program")
		if err := a.program(e); err != nil {
			return err
		}
	}
	for _, w := range argv[1:] {
		if _, v, ok := strings.Cut(w, "="); ok {
			w = v
		}
		if strings.HasPrefix(w, "/") {
			if err := a.named(path.Clean(w), "named by exec"); err != nil {
				return err
			}
		}
	}
	n := a.out.Name
	for _, f := range []AdoptedFile{
		{Path: "/etc/" + n, Why: "configuration"},
		{Path: "/etc/" + n + ".conf", Why: "configuration"},
		{Path: "/etc/default/" + n, Why: "configuration"},
		{Path: "/etc/opt/" + n, Why: "configuration"},
		{Path: "/opt/" + n, Why: "of its name"},
		{Path: "/srv/" + n, Why: "of its name"},
	} {
		if err := a.named(f.Path, f.Why); err != nil {
			return err
		}
	}
	for _, name := range []string{"/var/lib/" + n, "/var/opt/" + n, "/var/cache/" + n, "/var/log/" + n} {
		e, err := a.stat(name[1:])
		switch {
		case err != nil:
			return err
		case e == nil || !e.IsDir():
		case strings.HasPrefix(name, "/var/cache/") || strings.HasPrefix(name, "/var/log/"):
			a.writes(name, false)
		default:
			a.out.Volumes = append(a.out.Volumes, name)
		}
	}
	for _, list := range []*[]string{&a.out.Volumes, &a.out.Writable, &a.out.Made} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	slices.SortFunc(a.out.Files, func(x, y AdoptedFile) int { return strings.Compare(x.Path, y.Path) })
	return nil
}

// named notes a file or folder if it is there.
func (a *adopter) named(name, why string) error {
	e, err := a.stat(strings.TrimPrefix(name, "/"))
	if err != nil || e == nil || !e.IsRegular() && !e.IsDir() || e.Name == "." {
		return err
	}
	a.file(name, why)
	return nil
}

// program notes the interpreter of a script, or the libraries of a program.
func (a *adopter) program(e *image.Entry) error {
	if !e.IsRegular() || e.Size > maxProgram {
		a.notef("%q is not looked into: it has %d bytes", "/"+e.Name, e.Size)
		return nil
	}
	data, err := a.root.ReadFile(e.Name)
	if err != nil {
		return err
	}
	if line, ok := bytes.CutPrefix(data, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line[:min(len(line), 256)], []byte("\n"))
		f := strings.Fields(string(line))
		if len(f) == 0 || !strings.HasPrefix(f[0], "/") {
			return nil
		}
		interp, err := a.stat(f[0][1:])
		if err != nil || interp == nil {
			a.notef("%q is started with %q, which is not there", "/"+e.Name, f[0])
			return err
		}
		a.file(f[0], "interpreter")
		a.notef("%q is a script: what it starts and reads is not known", "/"+e.Name)
		return a.libraries(interp)
	}
	return a.libraries(e)
}

// libraries notes what a program is linked with, and what that is linked with.
func (a *adopter) libraries(program *image.Entry) error {
	todo := []*image.Entry{program}
	seen := map[string]bool{}
	for n := 0; len(todo) > 0; n++ {
		if n == maxLibraries {
			return builder.Input(fmt.Errorf("%q needs more than %d libraries", "/"+program.Name, maxLibraries))
		}
		e := todo[0]
		todo = todo[1:]
		if !e.IsRegular() || e.Size > maxProgram {
			continue
		}
		data, err := a.root.ReadFile(e.Name)
		if err != nil {
			return err
		}
		l, err := linkage(data)
		if err != nil {
			if n == 0 {
				a.notef("%q: %v", "/"+e.Name, err)
			}
			continue
		}
		if l.interpreter != "" {
			if err := a.named(path.Clean(l.interpreter), "loader"); err != nil {
				return err
			}
		}
		for _, lib := range l.needed {
			if seen[lib] {
				continue
			}
			seen[lib] = true
			name, found, err := a.library(lib, path.Dir("/"+e.Name), l)
			if err != nil {
				return err
			}
			if found == nil {
				a.notef("%q needs the library %q, which is not found", "/"+e.Name, lib)
				continue
			}
			a.file(name, "library")
			todo = append(todo, found)
		}
	}
	return nil
}

// A link is what an ELF file says of the libraries it is linked with.
type link struct {
	class       elf.Class
	machine     elf.Machine
	interpreter string
	needed      []string
	paths       []string // RUNPATH, or RPATH
}

var errBroken = errors.New("not a well-formed ELF file")

// linkage reads the dynamic section of a program or library.
func linkage(data []byte) (l link, err error) {
	// The package says of itself that it is not hardened.
	defer func() {
		if recover() != nil {
			l, err = link{}, errBroken
		}
	}()
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return l, errBroken
	}
	l.class, l.machine = f.Class, f.Machine
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			text := make([]byte, p.Filesz)
			if _, err := p.ReadAt(text, 0); err != nil {
				return l, errBroken
			}
			l.interpreter = string(bytes.TrimRight(text, "\x00"))
		}
	}
	if l.needed, err = f.ImportedLibraries(); err != nil {
		return link{}, errBroken
	}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		if dirs, err := f.DynString(tag); err == nil && len(dirs) > 0 {
			l.paths = strings.Split(strings.Join(dirs, ":"), ":")
			break
		}
	}
	return l, nil
}

// library finds a library as ld.so(8) and ld.so.1(1) do, but for caches and configured folders.
func (a *adopter) library(name, origin string, l link) (string, *image.Entry, error) {
	var dirs []string
	for _, p := range l.paths {
		p = strings.NewReplacer("${ORIGIN}", origin, "$ORIGIN", origin).Replace(p)
		if strings.HasPrefix(p, "/") {
			dirs = append(dirs, path.Clean(p))
		}
	}
	wide, triplet := "lib64", map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu", elf.EM_386: "i386-linux-gnu"}[l.machine]
	if triplet != "" {
		dirs = append(dirs, "/lib/"+triplet, "/usr/lib/"+triplet)
	}
	if l.class == elf.ELFCLASS64 {
		dirs = append(dirs, "/lib/64", "/usr/lib/64", "/"+wide, "/usr/"+wide)
	}
	dirs = append(dirs, "/lib", "/usr/lib", "/usr/local/lib", "/opt/local/lib", "/opt/ooce/lib/amd64", "/opt/ooce/lib")
	if strings.HasPrefix(name, "/") {
		dirs, name = []string{path.Dir(name)}, path.Base(name)
	}
	for _, dir := range dirs {
		at := path.Join(dir, name)
		e, err := a.stat(strings.TrimPrefix(at, "/"))
		if err != nil || e != nil && e.IsRegular() {
			return at, e, err
		}
	}
	return "", nil, nil
}

// owners looks up the packages of the files, in the databases of dpkg and apk.
func (a *adopter) owners() error {
	owner := map[string]string{}
	lists, err := a.root.Glob("var/lib/dpkg/info/*.list")
	if err != nil {
		return err
	}
	for _, name := range lists {
		data, err := a.read(name, maxOwned)
		if err != nil {
			return err
		}
		pkg, _, _ := strings.Cut(strings.TrimSuffix(path.Base(name), ".list"), ":")
		for line := range strings.Lines(string(data)) {
			owner[merged(strings.TrimRight(line, "\n"))] = pkg
		}
	}
	data, err := a.read("lib/apk/db/installed", maxOwned)
	if err != nil {
		return err
	}
	pkg, dir := "", ""
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		switch key {
		case "P":
			pkg, dir = value, ""
		case "F":
			dir = value
		case "R":
			owner[merged(path.Join("/", dir, value))] = pkg
		}
	}
	for i := range a.out.Files {
		f := &a.out.Files[i]
		f.Package = owner[merged(f.Path)]
	}
	return nil
}

// merged is a path as a system has it whose /bin, /sbin and /lib are those of /usr: packages name
// either.
func merged(name string) string {
	for _, dir := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(name, dir) {
			return "/usr" + name
		}
	}
	return name
}
