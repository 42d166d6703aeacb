package registry

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/goldenisc/packer-plugin-isc/internal/flock"
)

// The files of a layout (image-layout.md).
const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	layoutBody = `{"imageLayoutVersion":"1.0.0"}`

	// tempPrefix begins the names of files that are being written. They stand beside index.json,
	// where readers of layouts do not look, and are locked by their writer: one that is not locked
	// was left by a writer that was killed.
	tempPrefix = ".tmp-"

	maxIndexFile = 16 << 20         // bytes of index.json, of which the folder's owner decides the number of tags
	lockWait     = 30 * time.Second // changes of index.json take milliseconds
)

// A Layout is an OCI image layout in a folder. Its methods may be called concurrently, and any
// number of processes may write to one layout at the same time.
//
// What is being written becomes visible by a rename, after it is safe on disk. A writer that dies
// at any point leaves the tags and blobs that were there, and at most a temporary file that the
// next writer removes.
type Layout struct {
	dir string

	sweep sync.Once // before the first write
}

// OpenLayout opens an existing layout. It fails with an error that is [fs.ErrNotExist] if the
// folder does not exist or is not a layout.
func OpenLayout(dir string) (*Layout, error) {
	// Closing any descriptor of a file drops the process's fcntl lock on it.
	layoutMu.Lock()
	defer layoutMu.Unlock()
	data, err := readFile(filepath.Join(dir, layoutFile), 4096)
	if err != nil {
		return nil, fmt.Errorf("OCI layout %q: %w", dir, err)
	}
	var v struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return nil, fmt.Errorf("OCI layout %q: %s: %w", dir, layoutFile, err)
	}
	if v.Version != "1.0.0" {
		return nil, fmt.Errorf("OCI layout %q: layout version %q: this program knows 1.0.0", dir, v.Version)
	}
	return &Layout{dir: dir}, nil
}

// CreateLayout opens the layout in dir, or makes one if dir does not exist or is empty. Any other
// folder is refused.
func CreateLayout(dir string) (*Layout, error) {
	l := &Layout{dir: dir}
	if err := l.create(); err != nil {
		return nil, fmt.Errorf("OCI layout %q: %w", dir, err)
	}
	return OpenLayout(dir)
}

func (l *Layout) create() error {
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return err
	}
	if _, err := os.Lstat(l.path(layoutFile)); errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(l.dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			// Another program may be making the layout right now.
			if n := e.Name(); n != layoutFile && !strings.HasPrefix(n, tempPrefix) {
				return fmt.Errorf("the folder has %q in it and is no OCI layout", n)
			}
		}
		f, err := os.OpenFile(l.path(layoutFile), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return l.locked(func() error {
		// The file is the lock, so it is written in place. A part of it is what a killed writer left.
		data, err := readFile(l.path(layoutFile), 4096)
		if err != nil {
			return err
		}
		if len(data) < len(layoutBody) && strings.HasPrefix(layoutBody, string(data)) {
			if err := writeSynced(l.path(layoutFile), os.O_WRONLY, []byte(layoutBody)); err != nil {
				return err
			}
		}
		if err := os.MkdirAll(l.path("blobs", "sha256"), 0o755); err != nil {
			return err
		}
		if _, err := os.Lstat(l.path(indexFile)); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return l.replaceIndex(new(indexJSON))
	})
}

// Dir is the folder of the layout.
func (l *Layout) Dir() string { return l.dir }

func (l *Layout) path(elem ...string) string {
	return filepath.Join(append([]string{l.dir}, elem...)...)
}

func (l *Layout) blobPath(digest string) (string, error) {
	h, err := digestHex(digest)
	if err != nil {
		return "", err
	}
	return l.path("blobs", "sha256", h), nil
}

// Open opens a blob. Its bytes are not verified; [Layout.ReadAll] and [Layout.Blob] do that.
func (l *Layout) Open(digest string) (*os.File, error) {
	f, err := l.open(digest)
	if err != nil {
		return nil, fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	return f, nil
}

func (l *Layout) open(digest string) (*os.File, error) {
	path, err := l.blobPath(digest)
	if err != nil {
		return nil, err
	}
	f, err := openRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", digest, fs.ErrNotExist)
	}
	return f, err
}

// ReadAll returns the bytes of a blob of at most limit bytes, verified.
func (l *Layout) ReadAll(digest string, limit int64) ([]byte, error) {
	data, err := l.readAll(digest, limit)
	if err != nil {
		return nil, fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	return data, nil
}

func (l *Layout) readAll(digest string, limit int64) ([]byte, error) {
	f, err := l.open(digest)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return readVerified(f, Descriptor{Digest: digest, Size: fi.Size()}, limit)
}

// PutBlob stores data as a blob and returns its digest.
func (l *Layout) PutBlob(data []byte) (string, error) {
	b, err := l.Create()
	if err != nil {
		return "", err
	}
	defer b.Close()
	if _, err := b.Write(data); err != nil {
		return "", err
	}
	digest, _, err := b.Commit()
	return digest, err
}

// A Blob is a blob being written. It is hashed on the way, and belongs to the layout after Commit.
// A Blob is used by one goroutine at a time.
type Blob struct {
	l     *Layout
	stage *Stage // that keeps it when it is finished, or nil
	f     *os.File
	buf   *bufio.Writer // gathers small writes
	hash  hashWriter
	size  int64
	begun int64 // bytes that are on their way to the disk
}

// writeback is how much of a blob is written before it is begun to be brought to the disk.
const writeback = 8 << 20

// Create begins a blob.
func (l *Layout) Create() (*Blob, error) {
	b := &Blob{l: l, hash: sha256.New()}
	err := l.locked(func() error {
		name := l.path(tempPrefix + rand.Text())
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		live.Store(name, true)
		if _, err := flock.Try(f); err != nil {
			discard(f)
			return err
		}
		b.f = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("OCI layout %q: %w", l.dir, err)
	}
	b.buf = bufio.NewWriterSize(blobWriter{b}, 256<<10)
	return b, nil
}

// blobWriter is the file and hash of a blob, behind its buffer.
type blobWriter struct{ b *Blob }

func (w blobWriter) Write(p []byte) (int, error) {
	n, err := w.b.f.Write(p)
	w.b.hash.Write(p[:n])
	w.b.size += int64(n)
	if behind := w.b.size - w.b.begun; behind >= writeback {
		startWriteback(w.b.f, w.b.begun, behind)
		w.b.begun = w.b.size
	}
	return n, err
}

// Write appends to the blob.
func (b *Blob) Write(p []byte) (int, error) { return b.buf.Write(p) }

// Commit makes the blob part of the layout, safe on disk, and returns its digest and its size in
// bytes. That the layout has the blob already is no error. After an error the blob is gone. A blob
// of a [Stage] becomes part of the layout with the stage.
func (b *Blob) Commit() (digest string, size int64, err error) {
	if digest, err = b.finish(); err != nil {
		return "", 0, err
	}
	if b.stage != nil {
		b.stage.keep(digest, b)
		return digest, b.size, nil
	}
	return digest, b.size, b.install(digest)
}

// commitAs makes the blob part of the layout if it is the one described.
func (b *Blob) commitAs(d Descriptor) error {
	digest, err := b.finish()
	if err != nil {
		return err
	}
	if digest != d.Digest || b.size != d.Size {
		b.Close()
		return fmt.Errorf("blob %s of %d bytes: got %s of %d bytes", d.Digest, d.Size, digest, b.size)
	}
	return b.install(digest)
}

// finish brings the bytes to the disk. After an error the blob is gone.
func (b *Blob) finish() (digest string, err error) {
	if b.f == nil {
		return "", fs.ErrClosed
	}
	if err := errors.Join(b.buf.Flush(), fsync(b.f)); err != nil {
		b.Close()
		return "", err
	}
	return "sha256:" + hex.EncodeToString(b.hash.Sum(nil)), nil
}

// install gives the file its name.
func (b *Blob) install(digest string) error {
	defer b.Close()
	path, err := b.l.blobPath(digest)
	if err != nil {
		return err
	}
	// The lock of the layout, because closing gives up the lock of the file, and Windows renames
	// closed files only.
	err = b.l.locked(func() error {
		name := b.f.Name()
		if err := b.f.Close(); err != nil {
			return err
		}
		if err := rename(name, path); err != nil {
			return err
		}
		live.Delete(name)
		b.f = nil
		return nil
	})
	if err != nil {
		return fmt.Errorf("OCI layout %q: %w", b.l.dir, err)
	}
	return nil
}

// Close gives up a blob that was not committed. After Commit it does nothing.
func (b *Blob) Close() error {
	if b.f == nil {
		return nil
	}
	err := discard(b.f)
	b.f = nil
	return err
}

// layoutMu serialises the short sections of this process that hold the lock of a layout: fcntl
// locks, all that Solaris has, do not keep goroutines apart.
var layoutMu sync.Mutex

// live has the paths of the temporary files that this process is writing. Asking for their locks
// would give them up where locks are the process's.
var live sync.Map

// locked runs f holding the lock of the layout, and removes before that what killed writers left.
func (l *Layout) locked(f func() error) (err error) {
	layoutMu.Lock()
	defer layoutMu.Unlock()
	for end := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		lock, err := os.OpenFile(l.path(layoutFile), os.O_RDWR|nonblock, 0)
		if err != nil {
			return err
		}
		ok, err := flock.Try(lock)
		if err == nil && ok {
			// Some program might have put a new file there meanwhile.
			held, err1 := lock.Stat()
			there, err2 := os.Stat(l.path(layoutFile))
			if err1 == nil && err2 == nil && os.SameFile(held, there) {
				defer lock.Close()
				break
			}
		}
		lock.Close()
		if err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("another program has it locked for %s", lockWait)
		}
	}
	l.sweep.Do(func() { removeLitter(l.dir, tempPrefix) })
	return f()
}

// removeLitter removes the files of this prefix that no process is writing. What cannot be removed
// is harmless and stays.
func removeLitter(dir, prefix string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if _, ours := live.Load(name); ours {
			continue
		}
		f, err := os.OpenFile(name, os.O_RDWR|nonblock, 0)
		if err != nil {
			continue
		}
		if ok, err := flock.Try(f); ok && err == nil {
			discard(f)
		} else {
			f.Close()
		}
	}
}

// discard closes and removes a temporary file.
func discard(f *os.File) error {
	f.Close() // its bytes do not matter; Windows removes closed files only
	err := os.Remove(f.Name())
	live.Delete(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// replaceFile puts data in the place of the file name, atomically. The caller holds the lock.
func (l *Layout) replaceFile(name string, data []byte) error {
	temp := l.path(tempPrefix + rand.Text())
	if err := writeSynced(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, data); err != nil {
		os.Remove(temp)
		return err
	}
	if err := rename(temp, l.path(name)); err != nil {
		os.Remove(temp)
		return err
	}
	return syncDir(l.dir)
}

// fsync brings a file to the disk. Tests do without: it is the power cut that it is for.
var fsync = (*os.File).Sync

func writeSynced(path string, flag int, data []byte) error {
	f, err := os.OpenFile(path, flag, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = fsync(f)
	}
	return errors.Join(err, f.Close())
}

// openRegular opens a regular file, or what a link to one leads to.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readFile reads a small file.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(f, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("%q: more than %d bytes", path, limit)
	}
	return b.Bytes(), err
}
