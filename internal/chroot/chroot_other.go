//go:build !linux

package chroot

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// Main does nothing here.
func Main() {}

// A Root is a tree in a folder.
type Root struct{}

// New returns ErrUnsupported.
func New(ctx context.Context, parent string, t *image.Tree) (*Root, error) {
	return nil, fmt.Errorf("%w: it takes Linux, and this is %s", ErrUnsupported, runtime.GOOS)
}

// Run is never called.
func (r *Root) Run(ctx context.Context, script string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	return 0, ErrUnsupported
}

// Put is never called.
func (r *Root) Put(ctx context.Context, t *image.Tree) error { return ErrUnsupported }

// Read is never called.
func (r *Root) Read(ctx context.Context, name string) (*image.Tree, error) {
	return nil, ErrUnsupported
}

// Dir is never called.
func (r *Root) Dir() string { return "" }

// Close is never called.
func (r *Root) Close() error { return nil }
