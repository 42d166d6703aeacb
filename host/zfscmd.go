package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/remote"
)

// A pool is what a place of the platform zfs stands for: a dataset, on this host or on another, and
// the zfs(8) there. Nothing is learnt from what that prints but in the form of -H and -p, and nothing
// from its messages.
type pool struct {
	run     remote.Runner
	far     bool // on another host
	dataset string
	program []string
	close   func() error
}

// parsePlace splits a place: POOL/DATASET, or ssh://[USER@]HOST[:PORT]/POOL/DATASET[?jump=…][&key=…].
func parsePlace(place string) (t remote.Target, far bool, dataset string, err error) {
	dataset = place
	if strings.HasPrefix(place, "ssh:") {
		far = true
		if t, dataset, err = remote.ParseTarget(place); err != nil {
			return t, far, "", err
		}
	}
	if err := checkDataset(dataset); err != nil {
		return t, far, "", err
	}
	return t, far, dataset, nil
}

// maxDataset bounds the name of a place: ZFS allows names of 255 bytes, of which instances, volumes
// and snapshots need some.
const maxDataset = 100

// checkDataset accepts the names of zfs(8), without spaces and ":", which ours have.
func checkDataset(name string) error {
	ok := len(name) <= maxDataset && !strings.HasPrefix(name, "-")
	for elem := range strings.SplitSeq(name, "/") {
		ok = ok && elem != "" && elem != "." && elem != ".."
		for _, c := range []byte(elem) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
		}
	}
	if !ok {
		return fmt.Errorf("dataset %q: use POOL/DATASET of letters, digits, \"-\", \"_\" and \".\", at most %d bytes", name, maxDataset)
	}
	return nil
}

// farPath is where programs of administration are looked for on other hosts, whose PATH for
// commands may have none of them.
const farPath = "PATH=/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin"

// openPool connects to a place. Commands here that outlive this process keep the lock, which may be
// nil: nobody makes good what they still change.
func openPool(ctx context.Context, place string, lock *os.File) (*pool, error) {
	t, far, dataset, err := parsePlace(place)
	if err != nil {
		return nil, err
	}
	p := &pool{run: remote.Local{}, far: far, dataset: dataset, close: func() error { return nil }}
	if far {
		c, err := remote.Dial(ctx, t, remote.Options{})
		if err != nil {
			return nil, err
		}
		p.run, p.close = c, c.Close
		p.program = []string{"env", farPath, "LC_ALL=C", "zfs"}
		return p, nil
	}
	if lock != nil && runtime.GOOS != "windows" {
		p.run = remote.Local{Files: []*os.File{lock}}
	}
	p.program = []string{"zfs"}
	if _, err := exec.LookPath("zfs"); err != nil {
		for _, name := range []string{"/usr/sbin/zfs", "/sbin/zfs"} {
			if _, err := os.Stat(name); err == nil {
				p.program = []string{name}
			}
		}
	}
	return p, nil
}

// zfs runs one command of zfs(8).
func (p *pool) zfs(ctx context.Context, args ...string) error {
	return p.run.Run(ctx, remote.Command{Args: append(slices.Clone(p.program), args...)})
}

// maxListing bounds what one command of zfs(8) prints, in bytes.
const maxListing = 64 << 20

func (p *pool) output(ctx context.Context, args ...string) (string, error) {
	out, err := remote.Output(ctx, p.run, maxListing, remote.Command{Args: append(slices.Clone(p.program), args...)})
	return string(out), err
}

// patience is how often a command is tried again that fails while something has a file open: a
// daemon that looks at new mounts, or the command before, whose caller was killed.
const patience = 5

func (p *pool) patiently(ctx context.Context, args ...string) error {
	for i := range patience {
		err := p.zfs(ctx, args...)
		if err == nil || i == patience-1 || ctx.Err() != nil {
			return err
		}
		if status, ok := remote.Status(err); !ok || status == statusUsage {
			return err
		}
		time.Sleep(50 * time.Millisecond << i)
	}
	return nil
}

// statusUsage is zfs(8)'s exit status for what it does not know: an option, a property.
const statusUsage = 2

// unknown reports whether this zfs(8) does not know an option or a property.
func unknown(err error) bool {
	status, ok := remote.Status(err)
	return ok && status == statusUsage
}

// get returns properties of a dataset or snapshot.
func (p *pool) get(ctx context.Context, name string, props ...string) (map[string]string, error) {
	out, err := p.output(ctx, "get", "-H", "-p", "-o", "property,value", strings.Join(props, ","), name)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(out) {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); ok {
			values[k] = v
		}
	}
	for _, k := range props {
		if _, ok := values[k]; !ok {
			return nil, fmt.Errorf("zfs get: no property %q of %q", k, name)
		}
	}
	return values, nil
}

// A dataset is a file system below a place.
type dataset struct {
	name       string // whole
	origin     string // snapshot; "-" of none
	mounted    bool
	mountpoint string
	snapshots  []snapshot // the oldest first
}

type snapshot struct {
	name     string // after the @
	deferred bool   // destroyed, as far as anybody but its clones is concerned
}

// A poolView is what there is in a place, by whole name.
type poolView map[string]*dataset

// view lists the place. The place itself must be there.
func (p *pool) view(ctx context.Context) (poolView, error) {
	const columns = "name,origin,mounted,defer_destroy,mountpoint"
	out, err := p.output(ctx, "list", "-H", "-r", "-t", "filesystem,snapshot", "-s", "creation", "-o", columns, p.dataset)
	if err != nil {
		return nil, err
	}
	v := poolView{}
	snapshots := map[string][]snapshot{}
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 5)
		if len(f) != 5 {
			return nil, fmt.Errorf("zfs list: line %q", line)
		}
		if name, snap, ok := strings.Cut(f[0], "@"); ok {
			snapshots[name] = append(snapshots[name], snapshot{snap, f[3] == "on"})
			continue
		}
		v[f[0]] = &dataset{name: f[0], origin: f[1], mounted: f[2] == "yes", mountpoint: f[4]}
	}
	for name, d := range v {
		d.snapshots = snapshots[name]
	}
	return v, nil
}

// below returns the datasets below a name, sorted by name: parents first.
func (v poolView) below(name string) []*dataset {
	var list []*dataset
	for n, d := range v {
		if strings.HasPrefix(n, name+"/") {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b *dataset) int { return strings.Compare(a.name, b.name) })
	return list
}

// has reports whether the dataset has a snapshot that is not merely kept for its clones.
func (d *dataset) has(name string) bool {
	return d != nil && slices.Contains(d.snapshots, snapshot{name: name})
}

// cloned reports whether a dataset that is not in except is a clone of a snapshot of d.
func (v poolView) cloned(d *dataset, except map[string]bool) bool {
	for _, o := range v {
		if strings.HasPrefix(o.origin, d.name+"@") && !except[o.name] {
			return true
		}
	}
	return false
}

// unmount unmounts what is mounted below a name, the innermost first.
func (p *pool) unmount(ctx context.Context, v poolView, name string) error {
	list := v.below(name)
	slices.SortStableFunc(list, func(a, b *dataset) int { return len(b.mountpoint) - len(a.mountpoint) })
	for _, d := range list {
		if d.mounted {
			if err := p.patiently(ctx, "unmount", d.name); err != nil {
				return err
			}
			d.mounted = false
		}
	}
	return nil
}

// mount mounts a dataset unless it is mounted.
func (p *pool) mount(ctx context.Context, name string) error {
	now, err := p.get(ctx, name, "mounted")
	if err != nil || now["mounted"] == "yes" {
		return err
	}
	return p.zfs(ctx, "mount", name)
}

// receive feeds a file to zfs receive. Not the file itself: it would be read to its end even after
// this process was killed.
func (p *pool) receive(ctx context.Context, target string, f io.ReadSeeker) error {
	try := func(args ...string) error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return p.run.Run(ctx, remote.Command{Args: append(slices.Clone(p.program), args...), Stdin: struct{ io.Reader }{f}})
	}
	err := try("receive", "-u", target)
	if unknown(err) { // before 2010; the parent's mountpoint is none anyway
		err = try("receive", target)
	}
	return err
}

// send writes a full stream of a snapshot.
func (p *pool) send(ctx context.Context, name string, w io.Writer) error {
	return p.run.Run(ctx, remote.Command{Args: append(slices.Clone(p.program), "send", name), Stdout: w})
}

// encrypts reports whether the pool can make encrypted datasets.
func (p *pool) encrypts(ctx context.Context) (bool, error) {
	program := slices.Clone(p.program)
	last := &program[len(program)-1]
	*last = path.Join(path.Dir(*last), "zpool")
	name, _, _ := strings.Cut(p.dataset, "/")
	out, err := remote.Output(ctx, p.run, maxListing, remote.Command{Args: append(program, "get", "-H", "-o", "value", "feature@encryption", name)})
	if _, ok := remote.Status(err); !ok {
		return false, err
	}
	state := strings.TrimSpace(string(out))
	return err == nil && (state == "enabled" || state == "active"), nil
}

// shell runs a script of one line by sh, with arguments that it has as $1, $2 ….
func (p *pool) shell(ctx context.Context, stdin []byte, script string, args ...string) error {
	return p.run.Run(ctx, remote.Command{Args: append([]string{"sh", "-c", script, "sh"}, args...), Stdin: bytes.NewReader(stdin)})
}

// safeDir makes a directory below root, and all that leads to it, that is not there, and refuses a
// link on the way: an instance could have made it.
func (p *pool) safeDir(ctx context.Context, root, name string) error {
	args := []string{root}
	args = append(args, strings.Split(name, "/")...)
	err := p.shell(ctx, nil, `cd "$1" || exit 1; shift; `+
		`for d; do [ ! -h "./$d" ] || exit 3; [ -d "./$d" ] || mkdir "./$d" || exit 1; cd "./$d" || exit 1; done`, args...)
	if status, ok := remote.Status(err); ok && status == 3 {
		return fmt.Errorf("%q: the instance has made a link of it: reset it", "/"+name)
	}
	return err
}

var errNoMountpoint = errors.New("it has no mount point: set its property mountpoint to a path")
