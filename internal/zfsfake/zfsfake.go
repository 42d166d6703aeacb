// Package zfsfake is a stand-in for zfs(8) and zpool(8) in tests: enough of them for the platform
// zfs, with datasets that are folders of an ordinary user. It refuses what the real ones refuse, and
// internal/hosttest is run against both, so that it does not become a world of its own.
//
// "Mounting" moves the folder of a dataset to its mount point and back. Snapshots and clones are
// copies. Streams are read and written by package zfs.
package zfsfake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// Env names the environment variable with the folder of the pool.
const Env = "ISC_FAKE_ZFS"

// A state is the pool, as the file state.json has it.
type state struct {
	Next     int // for folders and guids
	Datasets map[string]*dataset
}

type dataset struct {
	Dir       int // its folder, when it is not mounted
	Origin    string
	Props     map[string]string // set here
	Mounted   string            // where, or ""
	NoKey     bool              // an encrypted one cannot be mounted
	Snapshots []*snapshot
}

type snapshot struct {
	Name     string
	Dir      int
	GUID     uint64
	Holds    []string
	Deferred bool
	Streams  []string // what it was received from
}

// Create makes a pool named "tank", whose file system is mounted at mount, in an empty folder.
func Create(dir, mount string) error {
	s := &session{dir: dir, state: state{Datasets: map[string]*dataset{}}}
	if err := os.MkdirAll(mount, 0o755); err != nil {
		return err
	}
	if err := s.create("tank", map[string]string{"mountpoint": mount}); err != nil {
		return err
	}
	return s.save()
}

// Main is zfs or zpool, as name says. It returns the exit status.
func Main(name string, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := &session{dir: os.Getenv(Env), in: stdin, out: stdout}
	data, err := os.ReadFile(filepath.Join(s.dir, "state.json"))
	if err == nil {
		err = json.Unmarshal(data, &s.state)
	}
	if err == nil {
		if name == "zpool" {
			err = s.zpool(args)
		} else {
			err = s.zfs(args)
		}
	}
	if err == nil {
		err = s.save()
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, err)
	var u usageError
	if errors.As(err, &u) {
		return 2
	}
	return 1
}

type usageError string

func (u usageError) Error() string { return string(u) }

type session struct {
	dir   string
	in    io.Reader
	out   io.Writer
	state state
}

func (s *session) save() error {
	data, err := json.MarshalIndent(&s.state, "", " ")
	if err != nil {
		return err
	}
	temp := filepath.Join(s.dir, "state.json.new")
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(s.dir, "state.json"))
}

func (s *session) next() int { s.state.Next++; return s.state.Next }

func (s *session) path(n int) string { return filepath.Join(s.dir, "d"+strconv.Itoa(n)) }

// folder is where the content of a dataset is now.
func (s *session) folder(d *dataset) string {
	if d.Mounted != "" {
		return d.Mounted
	}
	return s.path(d.Dir)
}

func (s *session) zpool(args []string) error {
	if len(args) != 6 || args[0] != "get" || args[4] != "feature@encryption" {
		return usageError("usage: zpool get -H -o value feature@encryption POOL")
	}
	fmt.Fprintln(s.out, "enabled")
	return nil
}

// options splits flags, those with a value named, from operands.
func options(args []string, flags, valued string) (set map[byte][]string, rest []string, err error) {
	set = map[byte][]string{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") && len(args[0]) > 1 {
		for i := 1; i < len(args[0]); i++ {
			c := args[0][i]
			switch {
			case strings.IndexByte(valued, c) >= 0 && i == len(args[0])-1 && len(args) > 1:
				set[c] = append(set[c], args[1])
				args = args[1:]
				i = len(args[0]) // next argument
			case strings.IndexByte(flags, c) >= 0:
				set[c] = append(set[c], "")
			default:
				return nil, nil, usageError(fmt.Sprintf("invalid option '%c'", c))
			}
		}
		args = args[1:]
	}
	return set, args, nil
}

func (s *session) zfs(args []string) error {
	if len(args) == 0 {
		return usageError("missing command")
	}
	verbs := map[string]struct {
		flags, valued string
		operands      int
		run           func(o map[byte][]string, a []string) error
	}{
		"create": {"", "o", 1, func(o map[byte][]string, a []string) error {
			props, err := properties(o['o'])
			if err != nil {
				return err
			}
			return s.create(a[0], props)
		}},
		"snapshot":   {"", "", 1, func(_ map[byte][]string, a []string) error { return s.snapshot(a[0]) }},
		"destroy":    {"rd", "", 1, s.destroy},
		"rollback":   {"", "", 1, func(_ map[byte][]string, a []string) error { return s.rollback(a[0]) }},
		"clone":      {"", "", 2, func(_ map[byte][]string, a []string) error { return s.clone(a[0], a[1]) }},
		"rename":     {"", "", 2, func(_ map[byte][]string, a []string) error { return s.rename(a[0], a[1]) }},
		"mount":      {"O", "", 1, func(o map[byte][]string, a []string) error { return s.mount(a[0], o['O'] != nil) }},
		"unmount":    {"", "", 1, func(_ map[byte][]string, a []string) error { return s.unmount(a[0]) }},
		"unload-key": {"", "", 1, func(_ map[byte][]string, a []string) error { return s.unload(a[0]) }},
		"set":        {"", "", 2, func(_ map[byte][]string, a []string) error { return s.set(a[0], a[1]) }},
		"get":        {"Hp", "o", 2, s.get},
		"list":       {"Hr", "tos", 1, s.list},
		"receive":    {"u", "", 1, func(_ map[byte][]string, a []string) error { return s.receive(a[0]) }},
		"send":       {"", "", 1, func(_ map[byte][]string, a []string) error { return s.send(a[0]) }},
		"hold":       {"", "", 2, func(_ map[byte][]string, a []string) error { return s.hold(a[0], a[1]) }},
		"release":    {"", "", 2, func(_ map[byte][]string, a []string) error { return s.release(a[0], a[1]) }},
	}
	v, ok := verbs[args[0]]
	if !ok {
		return usageError(fmt.Sprintf("unrecognized command '%s'", args[0]))
	}
	o, rest, err := options(args[1:], v.flags, v.valued)
	if err != nil {
		return err
	}
	if len(rest) != v.operands {
		return usageError(fmt.Sprintf("%s: %d operands", args[0], len(rest)))
	}
	return v.run(o, rest)
}

func properties(list []string) (map[string]string, error) {
	props := map[string]string{}
	for _, p := range list {
		k, v, ok := strings.Cut(p, "=")
		if !ok {
			return nil, usageError("missing '='")
		}
		if !settable[k] && !strings.Contains(k, ":") {
			return nil, usageError("invalid property " + k)
		}
		props[k] = v
	}
	return props, nil
}

var settable = map[string]bool{
	"mountpoint": true, "canmount": true, "readonly": true, "devices": true, "setuid": true, "exec": true, "atime": true, "quota": true,
	"encryption": true, "keyformat": true, "keylocation": true,
}

func parent(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return ""
}

func (s *session) dataset(name string) (*dataset, error) {
	if d := s.state.Datasets[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("cannot open '%s': dataset does not exist", name)
}

func (s *session) snap(name string) (*dataset, *snapshot, error) {
	fsName, snapName, ok := strings.Cut(name, "@")
	if !ok {
		return nil, nil, usageError("missing '@'")
	}
	d, err := s.dataset(fsName)
	if err != nil {
		return nil, nil, err
	}
	for _, x := range d.Snapshots {
		if x.Name == snapName {
			return d, x, nil
		}
	}
	return nil, nil, fmt.Errorf("cannot open '%s': dataset does not exist", name)
}

// fresh makes a dataset that is not mounted.
func (s *session) fresh(name string, props map[string]string) (*dataset, error) {
	for _, elem := range strings.Split(name, "/") {
		if elem == "" || strings.ContainsAny(elem, "@#%") {
			return nil, fmt.Errorf("cannot create '%s': invalid name", name)
		}
	}
	if s.state.Datasets[name] != nil {
		return nil, fmt.Errorf("cannot create '%s': dataset already exists", name)
	}
	if p := parent(name); p != "" && s.state.Datasets[p] == nil {
		return nil, fmt.Errorf("cannot create '%s': parent does not exist", name)
	}
	d := &dataset{Dir: s.next(), Props: props}
	s.state.Datasets[name] = d
	return d, nil
}

func (s *session) create(name string, props map[string]string) error {
	if props["encryption"] != "" {
		key, err := io.ReadAll(s.in)
		if err != nil || len(key) != 32 || props["keyformat"] != "raw" || props["keylocation"] != "prompt" {
			return fmt.Errorf("cannot create '%s': key of %d bytes", name, len(key))
		}
	}
	d, err := s.fresh(name, props)
	if err != nil {
		return err
	}
	if err := os.Mkdir(s.path(d.Dir), 0o755); err != nil {
		return err
	}
	return s.automount(name)
}

// mountpoint is where the dataset is to be mounted, or "none".
func (s *session) mountpoint(name string) string {
	if m := s.state.Datasets[name].Props["mountpoint"]; m != "" {
		return m
	}
	p := parent(name)
	if p == "" {
		return "/" + name
	}
	m := s.mountpoint(p)
	if m == "none" {
		return m
	}
	return m + name[len(p):]
}

func (s *session) canmount(name string) string {
	if c := s.state.Datasets[name].Props["canmount"]; c != "" {
		return c
	}
	return "on"
}

func (s *session) automount(name string) error {
	if s.canmount(name) != "on" || s.mountpoint(name) == "none" {
		return nil
	}
	return s.mount(name, false)
}

func (s *session) mount(name string, over bool) error {
	d, err := s.dataset(name)
	if err != nil {
		return err
	}
	at := s.mountpoint(name)
	if d.Mounted != "" || at == "none" || s.canmount(name) == "off" || d.NoKey {
		return fmt.Errorf("cannot mount '%s': mounted, or without mountpoint, or canmount off, or without its key", name)
	}
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if list, err := os.ReadDir(at); err != nil || len(list) > 0 && !over {
		return errors.Join(err, fmt.Errorf("cannot mount '%s': directory is not empty", at))
	}
	if err := move(at, s.under(d)); err != nil {
		return err
	}
	d.Mounted = at
	return move(s.path(d.Dir), at)
}

// under is the folder of what a mounted dataset hides.
func (s *session) under(d *dataset) string { return s.path(d.Dir) + ".under" }

func (s *session) unmount(name string) error {
	d, err := s.dataset(name)
	if err != nil {
		return err
	}
	if d.Mounted == "" {
		return fmt.Errorf("cannot unmount '%s': not currently mounted", name)
	}
	for n, o := range s.state.Datasets {
		if strings.HasPrefix(o.Mounted, d.Mounted+"/") {
			return fmt.Errorf("cannot unmount '%s': '%s' is mounted in it", name, n)
		}
	}
	if err := move(d.Mounted, s.path(d.Dir)); err != nil {
		return err
	}
	if err := move(s.under(d), d.Mounted); err != nil {
		return err
	}
	if s.state.Datasets[name].Props["mountpoint"] == "" {
		os.Remove(d.Mounted) // as libzfs does
	}
	d.Mounted = ""
	return nil
}

func (s *session) unload(name string) error {
	d, err := s.dataset(name)
	if err != nil {
		return err
	}
	if d.Props["encryption"] == "" || d.Mounted != "" || d.NoKey {
		return fmt.Errorf("key unload error: '%s' is busy, or has no key", name)
	}
	d.NoKey = true
	return nil
}

func (s *session) set(prop, name string) error {
	d, err := s.dataset(name)
	if err != nil {
		return err
	}
	props, err := properties([]string{prop})
	if err != nil {
		return err
	}
	for k, v := range props {
		if k == "mountpoint" && d.Mounted != "" && d.Mounted != v {
			return errors.New("the fake does not remount")
		}
		d.Props[k] = v
	}
	return nil
}

func (s *session) snapshot(name string) error {
	fsName, snapName, ok := strings.Cut(name, "@")
	if !ok || snapName == "" {
		return usageError("missing '@'")
	}
	d, err := s.dataset(fsName)
	if err != nil {
		return err
	}
	if _, _, err := s.snap(name); err == nil {
		return fmt.Errorf("cannot create snapshot '%s': dataset already exists", name)
	}
	n := s.next()
	if err := s.copy(s.folder(d), s.path(n)); err != nil {
		return err
	}
	d.Snapshots = append(d.Snapshots, &snapshot{Name: snapName, Dir: n, GUID: uint64(n)})
	return nil
}

// clones returns the datasets that are clones of a snapshot.
func (s *session) clones(name string) []string {
	var list []string
	for n, d := range s.state.Datasets {
		if d.Origin == name {
			list = append(list, n)
		}
	}
	return list
}

func (s *session) destroy(o map[byte][]string, a []string) error {
	name := a[0]
	if strings.Contains(name, "@") {
		d, x, err := s.snap(name)
		if err != nil {
			return err
		}
		if len(s.clones(name))+len(x.Holds) > 0 {
			if o['d'] == nil {
				return fmt.Errorf("cannot destroy '%s': snapshot has dependent clones or is held", name)
			}
			x.Deferred = true
			return nil
		}
		return s.forget(d, x)
	}
	if o['d'] != nil {
		return usageError("-d is for snapshots")
	}
	if _, err := s.dataset(name); err != nil {
		return err
	}
	doomed := []string{name}
	for n := range s.state.Datasets {
		if strings.HasPrefix(n, name+"/") {
			doomed = append(doomed, n)
		}
	}
	if o['r'] == nil && (len(doomed) > 1 || len(s.state.Datasets[name].Snapshots) > 0) {
		return fmt.Errorf("cannot destroy '%s': filesystem has children", name)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(doomed)))
	for _, n := range doomed {
		for _, x := range s.state.Datasets[n].Snapshots {
			if len(x.Holds) > 0 {
				return fmt.Errorf("cannot destroy '%s@%s': held", n, x.Name)
			}
			for _, c := range s.clones(n + "@" + x.Name) {
				if !slices.Contains(doomed, c) {
					return fmt.Errorf("cannot destroy '%s': filesystem has dependent clones", name)
				}
			}
		}
	}
	for _, n := range doomed {
		d := s.state.Datasets[n]
		if d.Mounted != "" {
			if err := s.unmount(n); err != nil {
				return err
			}
		}
		for _, x := range slices.Clone(d.Snapshots) {
			if err := s.forget(d, x); err != nil {
				return err
			}
		}
		if err := remove(s.path(d.Dir)); err != nil {
			return err
		}
		origin := d.Origin
		delete(s.state.Datasets, n)
		if od, x, err := s.snap(origin); err == nil && x.Deferred && len(s.clones(origin))+len(x.Holds) == 0 {
			if err := s.forget(od, x); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) forget(d *dataset, x *snapshot) error {
	d.Snapshots = slices.DeleteFunc(d.Snapshots, func(o *snapshot) bool { return o == x })
	return remove(s.path(x.Dir))
}

func (s *session) rollback(name string) error {
	d, x, err := s.snap(name)
	if err != nil {
		return err
	}
	if d.Snapshots[len(d.Snapshots)-1] != x {
		return fmt.Errorf("cannot rollback to '%s': more recent snapshots exist", name)
	}
	if d.Mounted != "" {
		return errors.New("the fake rolls back what is not mounted only")
	}
	if err := remove(s.path(d.Dir)); err != nil {
		return err
	}
	return s.copy(s.path(x.Dir), s.path(d.Dir))
}

func (s *session) clone(from, name string) error {
	_, x, err := s.snap(from)
	if err != nil {
		return err
	}
	d, err := s.fresh(name, map[string]string{})
	if err != nil {
		return err
	}
	d.Origin = from
	if err := s.copy(s.path(x.Dir), s.path(d.Dir)); err != nil {
		return err
	}
	return s.automount(name)
}

func (s *session) rename(from, to string) error {
	if strings.Contains(from, "@") {
		d, x, err := s.snap(from)
		if err != nil {
			return err
		}
		if _, _, err := s.snap(to); err == nil || s.state.Datasets[strings.SplitN(to, "@", 2)[0]] != d {
			return fmt.Errorf("cannot rename to '%s': exists, or is of another file system", to)
		}
		x.Name = strings.SplitN(to, "@", 2)[1]
		s.moved(from, to)
		return nil
	}
	if _, err := s.dataset(from); err != nil {
		return err
	}
	if s.state.Datasets[to] != nil || s.state.Datasets[parent(to)] == nil {
		return fmt.Errorf("cannot rename '%s': '%s' exists, or its parent does not", from, to)
	}
	for n, d := range s.state.Datasets {
		if (n == from || strings.HasPrefix(n, from+"/")) && d.Mounted != "" {
			return fmt.Errorf("cannot rename '%s': dataset is busy", n)
		}
	}
	for n, d := range s.state.Datasets {
		if n == from || strings.HasPrefix(n, from+"/") {
			delete(s.state.Datasets, n)
			s.state.Datasets[to+n[len(from):]] = d
			for _, x := range d.Snapshots {
				s.moved(n+"@"+x.Name, to+n[len(from):]+"@"+x.Name)
			}
		}
	}
	return nil
}

// moved follows the renaming of a snapshot.
func (s *session) moved(from, to string) {
	for _, d := range s.state.Datasets {
		if d.Origin == from {
			d.Origin = to
		}
	}
}

func (s *session) hold(tag, name string) error {
	_, x, err := s.snap(name)
	if err != nil {
		return err
	}
	if slices.Contains(x.Holds, tag) {
		return fmt.Errorf("cannot hold '%s': tag already exists", name)
	}
	x.Holds = append(x.Holds, tag)
	return nil
}

func (s *session) release(tag, name string) error {
	d, x, err := s.snap(name)
	if err != nil {
		return err
	}
	i := slices.Index(x.Holds, tag)
	if i < 0 {
		return fmt.Errorf("cannot release '%s': no such tag", name)
	}
	x.Holds = slices.Delete(x.Holds, i, i+1)
	if x.Deferred && len(x.Holds)+len(s.clones(name)) == 0 {
		return s.forget(d, x)
	}
	return nil
}
