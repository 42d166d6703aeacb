package host

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// A Platform makes and keeps instances. Its methods are called with the lock of what they work on
// held, and may be killed at any point: what they do becomes visible in one step, and Recover
// makes good the rest.
type Platform interface {
	// Import makes the golden copy of a verified image, which must be compared with the content
	// manifest before it counts. It is called again for every pull: an intact copy is left alone, one
	// that was cut short or damaged is made good.
	Import(ctx context.Context, g *Golden, v *Verified) error
	// Clone makes the instance, or nothing. The notes say what could not be made as the image has it.
	Clone(ctx context.Context, j *Job) (notes []string, err error)
	// Check compares the instance with the content manifest.
	Check(ctx context.Context, j *Job, mode CheckMode) (*Report, error)
	// Reset gives the instance the golden content again. Volumes stay. If keep is not empty, what
	// the instance was is kept under that name.
	Reset(ctx context.Context, j *Job, keep string) error
	// Destroy removes the instance with all it has. That there is nothing is no error.
	Destroy(ctx context.Context, j *Job) error
	// Recover finishes or undoes what the instance's journal says was begun. It reports whether
	// the instance exists afterwards.
	Recover(ctx context.Context, j *Job) (exists bool, err error)
	// Remove removes the golden copy, which no instance needs.
	Remove(ctx context.Context, g *Golden) error
}

// A Snapshotter is a Platform that can keep states of an instance. Volumes are not part of them.
type Snapshotter interface {
	Snapshot(ctx context.Context, j *Job, name string) error
	Rollback(ctx context.Context, j *Job, name string) error
	Forget(ctx context.Context, j *Job, name string) error // that it is not there is no error
}

// A Cleaner is a Platform that sets aside what it replaces. That is removed after the state says
// that the operation is done, because removing a root can take longer than making one.
type Cleaner interface {
	Litter(in *Instance) bool // cheap
	Clean(ctx context.Context, in *Instance) error
}

// A Starter is a Platform that can run an instance's services, or make an instance usable after a
// boot for whatever runs it: then there is no process.
type Starter interface {
	Start(ctx context.Context, j *Job) (*Process, error)
	Stop(ctx context.Context, j *Job, timeout time.Duration) error
}

// A Placer is a Platform whose golden copies are in the places where instances are made, each of
// which needs one. The state names such a place as PLATFORM:PLACE.
type Placer interface {
	CheckPlace(place string) error
}

// An Upgrader is a Platform that can put another image under an instance, whose volumes stay.
type Upgrader interface {
	// Upgrade makes the root anew from the job's golden image and enters that in the instance in
	// the same step of the journal as the new root.
	Upgrade(ctx context.Context, j *Job) error
}

// Platforms are the kinds of places that instances can be made in, by the name before the colon
// in --to.
var Platforms = map[string]Platform{
	"dir": dirPlatform{},
	"zfs": zfsPlatform{},
}

// A Golden is an image in this host's store.
type Golden struct {
	Digest  string
	Config  *image.Config
	Content *image.Content
	Dir     string // of what is known about it; a platform's own files there begin with its name
	Place   string // of a Placer: where the golden copy is to be, or is

	store store
	lock  *os.File // of all images, while one is imported or removed
}

// Report returns the report that the image holds. Its error is [fs.ErrNotExist] if it holds none, or was
// imported by a version that did not keep it.
func (g *Golden) Report() ([]byte, error) { return os.ReadFile(filepath.Join(g.Dir, reportFile)) }

// A Job is one operation on one instance.
type Job struct {
	Golden   *Golden
	Instance *Instance // a copy, stored again when the operation is done
	Dir      string    // of the host's private files about the instance, which exists
	Progress image.Progress

	save func() error
	lock *os.File // of the instance
}

// Journal notes durably how far the operation is.
func (j *Job) Journal(phase string, inode uint64) error {
	p := *j.Instance.Pending
	p.Phase, p.Inode = phase, inode
	j.Instance.Pending = &p
	return j.save()
}

func (j *Job) path(name string) string { return filepath.Join(j.Dir, name) }
