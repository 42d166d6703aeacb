package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxKernel bounds a kernel or boot stub, in bytes.
const maxKernel = 256 << 20

// A kernel is what the root has of one.
type kernel struct {
	release string
	dir     string // of the modules
	image   []byte
	config  map[string]string // nil if the root has none
	modules *moduleIndex
}

// stubs are where systemd's boot stub stands in a root.
var stubs = map[string][]string{
	"amd64": {"usr/lib/systemd/boot/efi/linuxx64.efi.stub", "lib/systemd/boot/efi/linuxx64.efi.stub"},
	"arm64": {"usr/lib/systemd/boot/efi/linuxaa64.efi.stub", "lib/systemd/boot/efi/linuxaa64.efi.stub"},
}

// findKernel finds the newest kernel that has modules.
func (r *rootFS) findKernel(arch string) (*kernel, error) {
	type found struct {
		release string
		image   *node
	}
	var kernels []found
	dir := r.lookup("usr/lib/modules")
	if dir == nil {
		dir = r.lookup("lib/modules")
	}
	if dir == nil || !dir.Mode.IsDir() {
		return nil, &Problem{What: "the root has no kernel: neither usr/lib/modules nor lib/modules is a directory", Hint: "install one, such as Debian's linux-image-" + arch}
	}
	var without []string
	for _, c := range dir.children {
		release := path.Base(c.Path)
		if r.file(path.Join(c.Path, "modules.dep")) == nil {
			continue
		}
		names := []string{"boot/vmlinuz-" + release, path.Join(c.Path, "vmlinuz"), "boot/vmlinux-" + release, "boot/Image-" + release}
		if i := strings.LastIndexByte(release, '-'); i >= 0 {
			names = append(names, "boot/vmlinuz-"+release[i+1:]) // Alpine names it by its flavour
		}
		names = append(names, "boot/vmlinuz")
		n := (*node)(nil)
		for _, name := range names {
			if n = r.file(name); n != nil {
				break
			}
		}
		if n == nil {
			without = append(without, release)
			continue
		}
		kernels = append(kernels, found{release, n})
	}
	if len(kernels) == 0 {
		what := "the root has no kernel: nothing below " + dir.Path + " has a modules.dep"
		if len(without) > 0 {
			what = fmt.Sprintf("the root has modules of kernel %s, but no boot/vmlinuz-%s", without[0], without[0])
		}
		return nil, &Problem{What: what, Hint: "install the whole kernel package, such as Debian's linux-image-" + arch}
	}
	newest := slices.MaxFunc(kernels, func(a, b found) int { return compareVersions(a.release, b.release) })
	k := &kernel{release: newest.release, dir: path.Join(dir.Path, newest.release)}
	image, err := newest.image.read(maxKernel)
	if err != nil {
		return nil, err
	}
	if k.image, err = kernelImage(image, arch); err != nil {
		return nil, &Problem{What: fmt.Sprintf("kernel %q %v", newest.image.Path, err), Hint: "it must be one for " + arch + " with an EFI stub"}
	}
	if named := bzImageRelease(k.image); named != "" && named != k.release {
		return nil, &Problem{What: fmt.Sprintf("kernel %q is of release %.64q, but its modules are of %q", newest.image.Path, named, k.release)}
	}
	var files [4][]byte
	for i, name := range []string{"modules.dep", "modules.softdep", "modules.builtin", "modules.alias"} {
		n := r.file(path.Join(k.dir, name))
		if n == nil {
			// Without the aliases nothing would be loaded, and without the soft dependencies too little.
			return nil, &Problem{What: fmt.Sprintf("the root has no %s of kernel %s", path.Join(k.dir, name), k.release), Hint: "run depmod " + k.release + " in it"}
		}
		if files[i], err = n.read(maxModules); err != nil {
			return nil, err
		}
	}
	k.modules = parseModules(files[0], files[1], files[2], files[3])
	for _, name := range []string{"boot/config-" + k.release, path.Join(k.dir, "config")} {
		n := r.file(name)
		if n == nil {
			continue
		}
		text, err := n.read(maxModules)
		if err != nil {
			return nil, err
		}
		k.config = map[string]string{}
		for line := range lines(text) {
			if key, value, ok := strings.Cut(line, "="); ok {
				k.config[key] = value
			}
		}
		break
	}
	return k, nil
}

// kernelImage checks a kernel's image, and unpacks it if it is compressed as a whole.
func kernelImage(b []byte, arch string) ([]byte, error) {
	if bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		if b, err = io.ReadAll(io.LimitReader(z, maxKernel+1)); err != nil {
			return nil, err
		}
		if len(b) > maxKernel {
			return nil, fmt.Errorf("unpacks to more than %d bytes", maxKernel)
		}
	}
	_, machine, err := parsePE(b)
	if err != nil {
		return nil, err
	}
	if machine != peMachines[arch] {
		return nil, fmt.Errorf("is for machine %#x, not for %s", machine, arch)
	}
	return b, nil
}

// bzImageRelease returns the release that an x86 kernel tells of itself (Documentation/arch/x86/boot.rst),
// or nothing.
func bzImageRelease(b []byte) string {
	if len(b) < 0x210 || string(b[0x202:0x206]) != "HdrS" {
		return ""
	}
	at := int(binary.LittleEndian.Uint16(b[0x20e:])) + 0x200
	if at == 0x200 || at >= len(b) {
		return ""
	}
	text := b[at:min(len(b), at+128)]
	if i := bytes.IndexAny(text, " \x00"); i >= 0 {
		return string(text[:i])
	}
	return ""
}

// compareVersions orders releases by their numbers and the text between.
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		x, y := digits(a), digits(b)
		if x > 0 && y > 0 {
			m, _ := strconv.Atoi(a[:x])
			n, _ := strconv.Atoi(b[:y])
			if m != n {
				return m - n
			}
			a, b = a[x:], b[y:]
			continue
		}
		switch {
		case a == "":
			return -1
		case b == "":
			return 1
		case a[0] != b[0]:
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return 0
}

// digits returns how many digits s starts with, as far as they fit an int.
func digits(s string) int {
	n := 0
	for n < len(s) && n < 18 && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

// initrd packs init and modules, compressed as the kernel can unpack it.
func (k *kernel) initrd(r *rootFS, program []byte, s *moduleSet) ([]byte, error) {
	var c cpio
	for _, dir := range []string{"dev", "proc", "sys", "run", "sysroot", "modules"} {
		c.add(dir, 0o040755, 0, 0, nil)
	}
	c.add("dev/console", 0o020600, 5, 1, nil) // the kernel opens it before init has /dev
	c.add("init", 0o100755, 0, 0, program)
	var base, lines bytes.Buffer
	for _, name := range s.base {
		fmt.Fprintln(&base, name)
	}
	for _, d := range s.drivers {
		fmt.Fprintln(&lines, d.pattern, strings.Join(d.load, " "))
	}
	c.add("modules/base", 0o100644, 0, 0, base.Bytes())
	c.add("modules/drivers", 0o100644, 0, 0, lines.Bytes())
	for _, name := range s.all {
		file := path.Join(k.dir, k.modules.files[name])
		n := r.file(file)
		if n == nil {
			return nil, &Problem{What: fmt.Sprintf("modules.dep names %q, which is not there", file)}
		}
		data, err := n.read(maxModule)
		if err != nil {
			return nil, err
		}
		if data, err = expand(n.Path, data); err != nil {
			return nil, err
		}
		c.add("modules/"+name+".ko", 0o100644, 0, 0, data)
	}
	return k.compress(c.bytes())
}

// compress packs the initrd by zstd, or by gzip if the kernel is not known to have that.
func (k *kernel) compress(b []byte) ([]byte, error) {
	if k.config["CONFIG_RD_ZSTD"] == "y" {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return w.EncodeAll(b, nil), nil
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, 6)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(b); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
