package registry

import (
	"context"
	"fmt"

	"github.com/goldenisc/packer-plugin-isc/image"
)

// Options are how registries are reached and who is told of the progress. The zero value is fine.
type Options struct {
	PlainHTTP bool           // also to other machines than this one
	Progress  image.Progress // in bytes
}

// Open opens the place of a reference for reading.
func Open(ctx context.Context, ref Ref, o Options) (Store, error) {
	switch ref.Place {
	case InLayout:
		return OpenLayout(ref.Path)
	case InArchive:
		return openArchive(ref.Path)
	case InRegistry:
		return openRepository(ctx, ref, o.PlainHTTP, false)
	}
	return nil, fmt.Errorf("reference %q: no place to open", ref)
}

// OpenTarget opens the place of a reference for writing, a layout being made if there is none. An
// archive cannot be changed: [Copy] writes it as a whole.
func OpenTarget(ctx context.Context, ref Ref, o Options) (Target, error) {
	switch ref.Place {
	case InLayout:
		return CreateLayout(ref.Path)
	case InArchive:
		return nil, fmt.Errorf("%q: an archive cannot be changed; copy it to a layout or registry", ref)
	case InRegistry:
		return openRepository(ctx, ref, o.PlainHTTP, true)
	}
	return nil, fmt.Errorf("reference %q: no place to open", ref)
}
