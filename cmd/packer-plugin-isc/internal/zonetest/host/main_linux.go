// Host stands in for what a host of illumos has for zones: zonecfg(8), zoneadm(8), zlogin(1), zfs(8) and
// tar(1), told apart by the name that it is called by. It keeps state beside itself, in .zones, and
// refuses what the real ones refuse, in their words where those matter.
//
// A file hold-STEP there makes a command stop in the step, after it wrote at-STEP, until it is killed or
// the file is gone.
package main

//lint:file-ignore ST1005 The words are those of the real commands.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A zone is what the files below /etc/zones and the kernel know of one.
type zone struct {
	Name, State, Path, Brand, Token string
	Set                             []string  // what zonecfg was told besides
	Later                           string    // the state that zoneadmd brings about on its own
	At                              time.Time // when
	Asked                           int       // times that svcs was
}

var dir string

func main() {
	self, err := exec.LookPath(os.Args[0])
	if err == nil {
		self, err = filepath.Abs(self)
	}
	dir = filepath.Join(filepath.Dir(self), ".zones")
	name := filepath.Base(os.Args[0])
	if err == nil {
		record(name)
		switch args := os.Args[1:]; name {
		case "zonecfg":
			err = zonecfg(args)
		case "zoneadm":
			err = zoneadm(args)
		case "zlogin":
			err = zlogin(args)
		case "zfs":
			err = zfs(args)
		case "tar":
			err = tar(args)
		default:
			err = errors.New("called by no name it knows")
		}
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// record notes the command.
func record(name string) {
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		fmt.Fprintf(f, "%s %q\n", name, os.Args[1:])
		f.Close()
	}
}

func file(name string) string { return filepath.Join(dir, name+".zone") }

func load(name string) (*zone, error) {
	data, err := os.ReadFile(file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var z zone
	if err == nil {
		err = json.Unmarshal(data, &z)
	}
	if err == nil && z.Later != "" && time.Now().After(z.At) {
		z.State, z.Later = z.Later, ""
		err = z.save()
	}
	return &z, err
}

func (z *zone) save() error {
	data, err := json.Marshal(z)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file(z.Name)+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(file(z.Name)+".new", file(z.Name))
}

func is(name string) bool { return exists(filepath.Join(dir, name)) }

func hold(step string) {
	if is("hold-" + step) {
		os.WriteFile(filepath.Join(dir, "at-"+step), nil, 0o644)
		for is("hold-" + step) {
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// lock keeps other commands about the zone waiting, as zonecfg_grab_lock_file does.
func lock(name string) error {
	fd, err := syscall.Open(filepath.Join(dir, name+".lock"), syscall.O_RDWR|syscall.O_CREAT, 0o644)
	if err == nil {
		err = syscall.Flock(fd, syscall.LOCK_EX)
	}
	return err // to the end of the process
}

var brands = []string{"illumos", "ipkg", "lipkg", "lx"}

// zonecfg takes commands as arguments, separated by semicolons.
func zonecfg(args []string) error {
	if len(args) < 3 || args[0] != "-z" {
		return errors.New("usage: zonecfg -z zonename subcommand")
	}
	name := args[1]
	if strings.ContainsAny(name, "/ ;") || name == "global" || strings.HasPrefix(name, "SUNW") {
		return fmt.Errorf("%s: invalid zone name", name)
	}
	old, err := load(name)
	if err != nil {
		return err
	}
	z, attr, in := old, map[string]string{}, ""
	hold("configure")
	for command := range strings.SplitSeq(strings.Join(args[2:], " "), ";") {
		f := strings.Fields(command)
		switch {
		case len(f) == 0:
			return errors.New("syntax error")
		case z == nil && f[0] != "create":
			return fmt.Errorf("%s: No such zone configured", name)
		case in != "" && f[0] == "end":
			if in == "attr" && attr["name"] == "isc-build" {
				z.Token = attr["value"]
			}
			in, attr = "", map[string]string{}
		case f[0] == "set" && len(f) >= 2:
			key, value, ok := strings.Cut(strings.Join(f[1:], " "), "=")
			switch {
			case !ok:
				return fmt.Errorf("syntax error at %q", command)
			case in != "":
				attr[key] = value
			case key == "brand" && !slices.Contains(brands, value):
				return fmt.Errorf("%s: Unknown brand", value)
			case key == "brand":
				z.Brand = value
			case key == "zonepath":
				z.Path = value
			}
			z.Set = append(z.Set, strings.TrimSpace(command))
		case in != "":
			return fmt.Errorf("%s: not allowed in the scope of a resource", f[0])
		case f[0] == "create" && slices.Equal(f, []string{"create", "-b"}):
			if old != nil {
				return fmt.Errorf("Zone %s already exists; use -F to force.", name)
			}
			z = &zone{Name: name, State: "configured"}
		case f[0] == "add" && len(f) == 2:
			in = f[1]
		case f[0] == "verify" && len(f) == 1:
			if z.Brand == "" || !strings.HasPrefix(z.Path, "/") {
				return errors.New("brand or zonepath: Required resource missing")
			}
		case f[0] == "commit" && len(f) == 1:
			if err := z.save(); err != nil {
				return err
			}
		case slices.Equal(f, []string{"info", "attr", "name=isc-build"}):
			if z.Token == "" {
				fmt.Println("No such attr resource.")
			} else {
				fmt.Printf("attr:\n\tname: isc-build\n\ttype: string\n\tvalue: %s\n", z.Token)
			}
		case slices.Equal(f, []string{"delete", "-F"}):
			if z.State != "configured" && z.State != "incomplete" {
				return fmt.Errorf("Zone %s is %s; delete not allowed", name, z.State)
			}
			if err := os.Remove(file(name)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("syntax error at %q", command)
		}
	}
	return nil
}

// zoneadm's states and what they refuse are those of sanity_check in zoneadm.c and of zoneadmd.c.
func zoneadm(args []string) error {
	if slices.Equal(args, []string{"list", "-cp"}) {
		return list()
	}
	if len(args) < 3 || args[0] != "-z" {
		return errors.New("usage: zoneadm -z zonename subcommand")
	}
	if verb := args[2]; verb == "install" || verb == "uninstall" {
		if err := lock(args[1]); err != nil {
			return err
		}
	}
	z, err := load(args[1])
	if err == nil && z == nil {
		err = fmt.Errorf("%s: No such zone configured", args[1])
	}
	if err != nil {
		return err
	}
	verb, args := args[2], args[3:]
	invalid := fmt.Errorf("zone '%s': %s operation is invalid for %s zones.", z.Name, verb, z.State)
	up := z.State == "ready" || z.State == "running" || z.State == "shutting_down"
	if len(args) > 0 && verb != "install" && verb != "uninstall" {
		return fmt.Errorf("%s: invalid option", args[0])
	}
	switch verb {
	case "install":
		if z.State == "incomplete" {
			return fmt.Errorf("zone '%s': zone is incomplete; uninstall required.", z.Name)
		}
		if z.State != "configured" {
			return fmt.Errorf("zone '%s': is already installed.", z.Name)
		}
		return z.install(args)
	case "boot", "ready":
		switch {
		case z.State == "configured" || z.State == "incomplete":
			return fmt.Errorf("zone '%s': must be installed before %s.", z.Name, verb)
		case z.State == "running", verb == "ready" && up, z.State == "shutting_down":
			return invalid
		}
		if err := z.mount(); err != nil {
			return err
		}
		z.State = "ready"
		if verb == "boot" {
			z.Later, z.At = "running", time.Now().Add(300*time.Millisecond)
		}
		if err := z.save(); err != nil {
			return err
		}
		hold(verb)
		for verb == "boot" && z.State != "running" {
			time.Sleep(50 * time.Millisecond)
			if z, err = load(z.Name); err != nil {
				return err
			}
		}
		return nil
	case "shutdown", "halt":
		if verb == "shutdown" && z.State != "running" {
			return invalid
		}
		if !up {
			fmt.Fprintf(os.Stderr, "zone '%s': zone is already halted\n", z.Name)
			return nil
		}
		z.State, z.Later = "shutting_down", ""
		if err := z.save(); err != nil {
			return err
		}
		hold(verb)
		z.State = "installed"
		return errors.Join(z.kill(), z.unmount(), z.save())
	case "uninstall":
		switch {
		case up:
			return invalid
		case z.State == "configured":
			return fmt.Errorf("zone '%s': is already in state 'configured'.", z.Name)
		case !slices.Equal(args, []string{"-F"}):
			return errors.New("Input not from terminal and -F not specified: uninstall aborted.")
		}
		z.State = "configured"
		return errors.Join(os.RemoveAll(z.Path), z.save())
	}
	return fmt.Errorf("%s: unknown subcommand", verb)
}

// list prints zoneid:name:state:zonepath:uuid:brand:ip-type:debugid (zoneadm(8)).
func list() error {
	fmt.Println("0:global:running:/::ipkg:shared:0")
	names, err := filepath.Glob(file("*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		z, err := load(strings.TrimSuffix(filepath.Base(name), ".zone"))
		if err != nil {
			return err
		}
		if z == nil {
			continue
		}
		id := "-"
		if z.State == "running" || z.State == "ready" {
			id = "7"
		}
		fmt.Printf("%s:%s:%s:%s:0b5ee1d4-0000-4000-8000-000000000000:%s:excl:0\n", id, z.Name, z.State, strings.ReplaceAll(z.Path, ":", `\:`), z.Brand)
	}
	return nil
}

// install lays the template, or an archive if the brand takes one by -s (OmniOS, createzone of illumos).
func (z *zone) install(args []string) error {
	archive := ""
	if len(args) == 2 && args[0] == "-s" && (z.Brand == "illumos" || z.Brand == "lx") {
		archive = args[1]
	} else if len(args) > 0 {
		return fmt.Errorf("%s: invalid option", args[0])
	}
	z.State = "incomplete"
	if err := z.save(); err != nil {
		return err
	}
	if err := os.MkdirAll(z.hidden(), 0o755); err != nil {
		return err
	}
	hold("install")
	if archive == "" {
		if err := clone(filepath.Join(dir, "template"), z.hidden()); err != nil {
			return err
		}
	} else if out, err := exec.Command("/bin/tar", "-xpf", archive, "-C", z.hidden()).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	z.State = "installed"
	return errors.Join(os.Mkdir(z.root(), 0o755), z.save())
}

// clone copies a folder with owners, modes and times. Not by cp(1), which in a root without /proc fails
// to set modes.
func clone(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		at := to + strings.TrimPrefix(name, from)
		mode := info.Mode()
		switch mode.Type() {
		case fs.ModeDir:
			err = os.MkdirAll(at, 0o755)
		case fs.ModeSymlink:
			var target string
			if target, err = os.Readlink(name); err == nil {
				err = os.Symlink(target, at)
			}
		case 0:
			var data []byte
			if data, err = os.ReadFile(name); err == nil {
				err = os.WriteFile(at, data, 0o600)
			}
		default:
			return nil
		}
		if err != nil {
			return err
		}
		if os.Geteuid() == 0 {
			owner := info.Sys().(*syscall.Stat_t)
			if err := os.Lchown(at, int(owner.Uid), int(owner.Gid)); err != nil {
				return err
			}
		}
		if mode.Type() == fs.ModeSymlink {
			return nil
		}
		return errors.Join(os.Chmod(at, mode), os.Chtimes(at, info.ModTime(), info.ModTime()))
	})
}

// The root's file system is mounted while the zone is ready or running.
func (z *zone) root() string   { return filepath.Join(z.Path, "root") }
func (z *zone) hidden() string { return filepath.Join(z.Path, "unmounted") }

func (z *zone) mount() error {
	if exists(z.hidden()) {
		return errors.Join(os.Remove(z.root()), os.Rename(z.hidden(), z.root()))
	}
	return nil
}

func (z *zone) unmount() error {
	if !exists(z.hidden()) {
		return errors.Join(os.Rename(z.root(), z.hidden()), os.Mkdir(z.root(), 0o755))
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// zlogin gives the arguments, joined by spaces, to the shell of the zone's root.
func zlogin(args []string) error {
	if len(args) < 2 || strings.HasPrefix(args[0], "-") {
		return errors.New("usage: zlogin zonename command")
	}
	z, err := load(args[0])
	if err == nil && z == nil {
		err = fmt.Errorf("zone '%s' unknown", args[0])
	}
	if err != nil {
		return err
	}
	if z.State != "running" {
		return fmt.Errorf("login allowed only to running zones (%s is '%s').", z.Name, z.State)
	}
	line := strings.Join(args[1:], " ")
	if rest, ok := strings.CutPrefix(line, "svcs -H -o state "); ok {
		return z.svcs(rest)
	}
	if err := os.Chdir(z.root()); err != nil {
		return err
	}
	// Halting the zone ends it.
	syscall.Setpgid(0, 0) // an error says that it leads a session, and so a group
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s.%d.group", z.Name, os.Getpid())), nil, 0o644); err != nil {
		return err
	}
	env := append(os.Environ(), "ZONE="+z.Name)
	if is("chroot") {
		if err := syscall.Chroot("."); err != nil {
			return err
		}
		env = []string{"PATH=/usr/bin:/usr/sbin:/sbin", "HOME=/root", "LOGNAME=root", "ZONE=" + z.Name}
	}
	return syscall.Exec("/bin/sh", []string{"sh", "-c", line}, env)
}

// kill ends what zlogin began.
func (z *zone) kill() error {
	names, err := filepath.Glob(filepath.Join(dir, z.Name+".*.group"))
	for _, name := range names {
		pid, err := strconv.Atoi(strings.Split(strings.TrimPrefix(filepath.Base(name), z.Name+"."), ".")[0])
		if err == nil {
			syscall.Kill(-pid, syscall.SIGKILL) // most have ended
		}
		os.Remove(name)
	}
	return err
}

// svcs needs some time before the milestone is online.
func (z *zone) svcs(fmri string) error {
	hold("svcs")
	if fmri != "svc:/milestone/multi-user-server:default" {
		return fmt.Errorf("Pattern '%s' doesn't match any instances", fmri)
	}
	z.Asked++
	state := "online"
	switch {
	case is("maintenance"):
		state = "maintenance"
	case z.Asked == 1:
		state = "offline*"
	}
	fmt.Println(state)
	return z.save()
}

const pool = "rpool/zones/"

// zfs knows the root of zones and its snapshots.
func zfs(args []string) error {
	if len(args) == 5 && slices.Equal(args[:4], []string{"list", "-H", "-o", "name,mountpoint"}) {
		z, err := load(filepath.Base(filepath.Dir(args[4])))
		if err != nil {
			return err
		}
		if z == nil || z.root() != args[4] || exists(z.hidden()) {
			return fmt.Errorf("cannot open '%s': not a ZFS filesystem", args[4])
		}
		fmt.Printf("%s%s/ROOT/zbe\tlegacy\n", pool, z.Name)
		return nil
	}
	if len(args) != 2 || args[0] != "snapshot" && args[0] != "destroy" {
		return errors.New("unrecognized command")
	}
	dataset, snapshot, ok := strings.Cut(args[1], "@")
	name := strings.TrimSuffix(strings.TrimPrefix(dataset, pool), "/ROOT/zbe")
	z, err := load(name)
	if err != nil {
		return err
	}
	if z == nil || dataset != pool+name+"/ROOT/zbe" || !ok {
		return fmt.Errorf("cannot open '%s': dataset does not exist", dataset)
	}
	at := filepath.Join(z.root(), ".zfs", "snapshot", snapshot)
	if args[0] == "destroy" {
		return os.RemoveAll(filepath.Join(z.root(), ".zfs"))
	}
	if exists(at) {
		return fmt.Errorf("cannot create snapshot '%s': dataset already exists", args[1])
	}
	hold("snapshot")
	if err := clone(z.root(), filepath.Join(z.Path, "copy")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	return os.Rename(filepath.Join(z.Path, "copy"), at)
}

// tar writes what cE of illumos writes, whose extended headers are of type X. Anything else is for the
// real one.
func tar(args []string) error {
	if len(args) == 0 || args[0] != "cEf" {
		return syscall.Exec("/bin/tar", append([]string{"tar"}, args...), os.Environ())
	}
	if len(args) != 5 || args[1] != "-" || args[2] != "-C" || args[4] != "." {
		return errors.New("usage: tar cEf - -C directory .")
	}
	c := exec.Command("/bin/tar", "--format=posix", "--pax-option=delete=atime,delete=ctime", "-cf", "-", "-C", args[3], ".")
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	if is("hold-tar") {
		// Half of it is on its way.
		if _, err := io.CopyN(os.Stdout, out, 1<<10); err != nil {
			return err
		}
		hold("tar")
	}
	if err := relabel(os.Stdout, out); err != nil {
		return err
	}
	return c.Wait()
}

// relabel turns typeflag x into X. It steps over content by the sizes of ustar headers.
func relabel(w io.Writer, r io.Reader) error {
	block := make([]byte, 512)
	for {
		if _, err := io.ReadFull(r, block); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var size int64
		if block[156] != 0 {
			fmt.Sscanf(strings.Trim(string(block[124:136]), "\x00 "), "%o", &size)
		}
		if block[156] == 'x' {
			var sum int
			fmt.Sscanf(strings.Trim(string(block[148:156]), "\x00 "), "%o", &sum)
			block[156] = 'X'
			copy(block[148:156], fmt.Sprintf("%06o\x00 ", sum+'X'-'x'))
		}
		if _, err := w.Write(block); err != nil {
			return err
		}
		if _, err := io.CopyN(w, r, (size+511)/512*512); err != nil {
			return err
		}
	}
}
