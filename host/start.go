package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Start runs the first service of an instance, without waiting for it. On the platform dir this is
// no isolation: the service is a process of whoever starts it, with all their rights. It stays
// alive when the caller ends. On the platform zfs nothing is run, and the process is nil: the file
// systems of the instance are mounted.
func (h *Host) Start(ctx context.Context, name string) (*Process, error) {
	var started *Process
	err := h.do(ctx, name, "start", nil, func(j *Job, p Platform) error {
		s, ok := p.(Starter)
		if !ok {
			return fmt.Errorf("platform %q: %w", j.Instance.Platform, errors.ErrUnsupported)
		}
		if j.Instance.Process.alive() {
			return fmt.Errorf("it is running as process %d", j.Instance.Process.PID)
		}
		var err error
		if started, err = s.Start(ctx, j); err != nil {
			return err
		}
		j.Instance.Process = started
		if err := j.save(); err != nil {
			return errors.Join(err, started.stop(ctx, 0))
		}
		return nil
	})
	return started, err
}

// StopTimeout is how long a service may take to end, by default.
const StopTimeout = 10 * time.Second

// Stop asks the instance's service to end, and kills it after timeout. That it does not run is no
// error. On the platform zfs it unmounts the file systems of the instance.
func (h *Host) Stop(ctx context.Context, name string, timeout time.Duration) error {
	return h.do(ctx, name, "stop", nil, func(j *Job, p Platform) error {
		s, ok := p.(Starter)
		if !ok {
			return fmt.Errorf("platform %q: %w", j.Instance.Platform, errors.ErrUnsupported)
		}
		if err := s.Stop(ctx, j, timeout); err != nil {
			return err
		}
		j.Instance.Process = nil
		return j.save()
	})
}

// Start runs the program below the root that the first service names, with the root as its
// directory and as ISC_ROOT, in a session of its own. A link on the way to it is refused: it would
// lead out of the root.
func (p dirPlatform) Start(_ context.Context, j *Job) (*Process, error) {
	c := j.Golden.Config
	if len(c.Services) == 0 {
		return nil, errors.New("the image has no service")
	}
	svc := c.Services[0]
	args := strings.Fields(svc.Exec)
	if len(args) == 0 {
		return nil, fmt.Errorf("service %q starts nothing", svc.Name)
	}
	dir, _, _ := p.dirs(j.Instance)
	root := filepath.Join(dir, rootName)
	d, err := openFolder(root)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	name := strings.Trim(args[0], "/")
	parent, err := openBelow(d, filepath.ToSlash(filepath.Dir(filepath.FromSlash(name))))
	if err != nil {
		return nil, err
	}
	if parent != d {
		defer parent.Close()
	}
	if o, err := parent.lstat(filepath.Base(name)); err != nil || !o.mode.IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("service %q: %q is no program in the instance", svc.Name, args[0]))
	}
	logs := filepath.Join(dir, "log")
	if err := os.Mkdir(logs, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(logs, "service.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	proc, err := os.StartProcess(filepath.Join(root, filepath.FromSlash(name)), args, &os.ProcAttr{
		Dir: root, Env: environment(root), Files: []*os.File{null, log, log}, Sys: ownSession(),
	})
	if err != nil {
		return nil, err
	}
	go proc.Wait() // so that it does not stay a zombie while this program runs
	return &Process{PID: proc.Pid, Started: startTime(proc.Pid), Log: log.Name()}, nil
}

// environment is small: secrets in the caller's are not the service's business.
func environment(root string) []string {
	env := []string{"ISC_ROOT=" + root, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, key := range []string{"SystemRoot", "TMP", "TMPDIR", "TZ"} {
		if v, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+v)
		}
	}
	return env
}

func (dirPlatform) Stop(ctx context.Context, j *Job, timeout time.Duration) error {
	return j.Instance.Process.stop(ctx, timeout)
}

// stop ends the process and those of its session's group.
func (p *Process) stop(ctx context.Context, timeout time.Duration) error {
	if !p.alive() {
		return nil
	}
	if timeout > 0 {
		if err := terminate(p.PID); err != nil && p.alive() {
			return err
		}
		if p.ended(ctx, timeout) {
			return nil
		}
	}
	if err := kill(p.PID); err != nil && p.alive() {
		return err
	}
	if !p.ended(ctx, StopTimeout) {
		return fmt.Errorf("process %d does not end", p.PID)
	}
	return nil
}

func (p *Process) ended(ctx context.Context, timeout time.Duration) bool {
	for end := time.Now().Add(timeout); p.alive(); {
		if ctx.Err() != nil || time.Now().After(end) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

// alive reports whether the process runs, and is not another one that got its number.
func (p *Process) alive() bool {
	return p != nil && p.PID > 0 && running(p.PID) && startTime(p.PID) == p.Started
}
