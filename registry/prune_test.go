package registry

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"testing"
	"time"
)

func TestPrune(t *testing.T) {
	l := newLayout(t)
	writeTestImage(t, l, "v1")
	root, err := l.Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	statement := attachReferrer(t, l, root, "release")
	attachReferrer(t, l, statement, "about the release")
	old := mustPut(t, l, "old image")
	if err := l.Tag("old", old); err != nil {
		t.Fatal(err)
	}
	oldStatement := attachReferrer(t, l, old, "about the old image")
	if err := l.Tag(fallbackTag(old.Digest)+".sig", mustPut(t, l, "signature of the old image")); err != nil {
		t.Fatal(err)
	}
	loose := l.mustBlob([]byte("being written"))
	want := everything(t, layoutRef(l, "v1"))

	if freed, err := l.Prune(t.Context(), 0); err != nil || freed != loose.Size {
		t.Errorf("freed %d, %v; want the %d loose bytes", freed, err, loose.Size)
	}
	if err := l.Untag("old"); err != nil {
		t.Fatal(err)
	}
	if freed, err := l.Prune(t.Context(), time.Hour); err != nil || freed != 0 {
		t.Errorf("freed %d young bytes, %v", freed, err)
	}
	if freed, err := l.Prune(t.Context(), 0); err != nil || freed == 0 {
		t.Errorf("freed %d, %v", freed, err)
	}
	for _, d := range []Descriptor{old, oldStatement, loose} {
		if _, err := l.Open(d.Digest); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", d.Digest, err)
		}
	}
	if got := everything(t, layoutRef(l, "v1")); got != want {
		t.Errorf("the image is now\n%s\nwas\n%s", got, want)
	}
	tags, err := l.Tags(t.Context())
	slices.Sort(tags)
	if wantTags := []string{fallbackTag(root.Digest), fallbackTag(statement.Digest), "v1"}; err != nil || len(tags) != 3 || tags[2] != wantTags[2] {
		t.Errorf("tags %q, %v; want %q", tags, err, wantTags)
	}

	// What is found to be there is as good as written.
	again := l.mustBlob([]byte("old but wanted"))
	path, err := l.blobPath(again.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Now().Add(-48*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if has, err := l.Has(t.Context(), again); err != nil || !has {
		t.Fatal(has, err)
	}
	if _, err := l.Prune(t.Context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	if has, err := l.Has(t.Context(), again); err != nil || !has {
		t.Error(has, err)
	}

	// A layout that is not understood is left alone.
	bad := l.mustBlob([]byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`))
	bad.MediaType = typeIndex
	if err := l.Tag("bad", bad); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Prune(t.Context(), 0); err == nil {
		t.Error("pruned")
	}
	if has, err := l.Has(t.Context(), again); err != nil || !has {
		t.Error(has, err)
	}
}
