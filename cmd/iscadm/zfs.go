package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

func newZFS(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "zfs",
		Short: "Look at ZFS send streams, ours and others'",
	}
	var check bool
	dump := &cobra.Command{
		Use:   "dump FILE | REF ARTIFACT",
		Short: "Print a send stream as text that can be compared, or check it",
		Long: "Prints the records of a send stream and, of a full one, the objects, attributes and directory entries of the\n" +
			"file system, as text that can be compared. The stream is a file, compressed or not, or an artifact of an image.\n" +
			"With --check nothing is printed but what breaks a rule that zfs receive does not check and hosts rely on; the\n" +
			"status is 3 if anything does. Of an increment the records and their checksums are checked.",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.zfsDump(c.Context(), args, check)
		},
	}
	dump.Flags().BoolVar(&check, "check", false, "check instead of print")
	c.AddCommand(dump, newIMGAPI(a))
	return c
}

// maxStream bounds what a compressed stream may unpack to for a look at it, in bytes.
const maxStream = 1 << 40

// A streamDocument is what zfs dump --json prints.
type streamDocument struct {
	Stream   string    `json:"stream"`
	Size     int64     `json:"size"` // bytes, uncompressed
	Snapshot string    `json:"snapshot"`
	GUID     string    `json:"guid"`
	FromGUID string    `json:"fromGuid,omitempty"`
	Created  time.Time `json:"created"`
	Features []string  `json:"features"`
	Package  bool      `json:"package"`
	Problems []string  `json:"problems,omitempty"` // with --check
}

// openStream opens a file, or an artifact of an image.
func (a *app) openStream(ctx context.Context, args []string) (*builder.StreamFile, error) {
	if len(args) == 1 {
		f, err := os.Open(args[0])
		if err != nil {
			return nil, err
		}
		return builder.OpenStream(ctx, f, "", maxStream)
	}
	m, store, err := a.open(ctx, args[0])
	if err != nil {
		return nil, err
	}
	defer store.Close()
	r, err := m.Open(ctx, args[1])
	if errors.Is(err, fs.ErrNotExist) {
		return nil, badInput(fmt.Errorf("the image has no artifact %q", args[1]))
	}
	if err != nil {
		return nil, err
	}
	return builder.OpenStream(ctx, verifiedReader{r}, "", maxStream)
}

// A verifiedReader hides what kind of file it is, so that it is read to its end, where the digest is
// checked.
type verifiedReader struct{ io.ReadCloser }

func (a *app) zfsDump(ctx context.Context, args []string, check bool) (err error) {
	s, err := a.openStream(ctx, args)
	if err != nil {
		return streamError(err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	h, err := zfs.ReadHeader(io.NewSectionReader(s, 0, s.Size))
	if err != nil {
		return streamError(err)
	}
	doc := &streamDocument{
		Stream: strings.Join(args, " "), Size: s.Size, Snapshot: h.Name, GUID: strconv.FormatUint(h.GUID, 10), Created: h.Created.UTC(),
		Features: append([]string{}, h.Features...), Package: h.Package,
	}
	if h.FromGUID != 0 {
		doc.FromGUID = strconv.FormatUint(h.FromGUID, 10)
	}
	if !check {
		if a.json {
			return a.document(doc)
		}
		w := bufio.NewWriter(a.out)
		return errors.Join(streamError(zfs.Dump(w, s, s.Size)), w.Flush())
	}
	// What cannot be read at all is bad input; what can, and breaks a rule, is a finding.
	if err := zfs.Dump(io.Discard, s, s.Size); err != nil {
		return streamError(err)
	}
	if h.FromGUID == 0 && !h.Package {
		if err := zfs.Check(s, s.Size); err != nil {
			doc.Problems = strings.Split(err.Error(), "\n")
		}
	}
	for _, p := range doc.Problems {
		a.printf("%s\n", p)
	}
	if err := a.document(doc); err != nil {
		return err
	}
	if len(doc.Problems) > 0 {
		return answer(statusNo)
	}
	return nil
}

// streamError makes what is not the machine's fault bad input.
func streamError(err error) error {
	var path *fs.PathError
	if err == nil || errors.As(err, &path) || errors.Is(err, context.Canceled) || statusOf(err) != statusFailed {
		return err
	}
	return badInput(err)
}
