package release

import (
	"strings"
	"testing"
	"time"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/signing"
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// TestIncrements: the statement says from which image each increment leads to this one, so that no two
// streams of different lines can be put together.
func TestIncrements(t *testing.T) {
	increment := func(name, base, blob, guid string) image.Artifact {
		return image.Artifact{
			Name: name, Kind: image.KindIncrement, MediaType: image.TypeZFS + "+zstd", Digest: digest(blob), Size: 9, From: base,
			UncompressedDigest: digest("9"), UncompressedSize: 99, Attributes: map[string]string{image.AttrFromGUID: guid},
		}
	}
	c := &image.Config{Artifacts: []image.Artifact{
		{Name: "zfs", Kind: "zfs", MediaType: image.TypeZFS, Digest: digest("1"), Size: 1, Attributes: map[string]string{image.AttrGUID: "7"}},
		increment("zfs/1.0.0", digest("a"), "2", "18446744073709551615"),
		increment("zfs/1.1.0", digest("b"), "3", "1"),
	}}
	list, increments, err := artifacts(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 3 || len(increments) != 2 {
		t.Fatalf("%d artifacts, %d increments", len(list), len(increments))
	}
	if want := (signing.Increment{From: digest("a"), FromGUID: 1<<64 - 1, Artifact: digest("2")}); increments[0] != want {
		t.Errorf("%+v, want %+v", increments[0], want)
	}
	now := time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC)
	r := signing.Release{
		Name: "web", Version: "1.2.0", Channel: "stable", Epoch: 3, Issued: now, Expires: now.Add(time.Hour),
		Artifacts: list, Increments: increments,
	}
	st, err := r.Statement(digest("0"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := st.Release()
	if err != nil || len(back.Increments) != 2 || back.Increments[1] != increments[1] {
		t.Errorf("%v, %+v", err, back)
	}

	for _, bad := range []image.Artifact{increment("zfs/x", digest("a"), "2", ""), increment("zfs/x", digest("a"), "2", "-1")} {
		if _, _, err := artifacts(&image.Config{Artifacts: []image.Artifact{bad}}); err == nil || !strings.Contains(err.Error(), "zfs/x") {
			t.Errorf("%v: %v", bad.Attributes, err)
		}
	}
	// A base that is no digest is refused by the statement.
	r.Increments = []signing.Increment{{From: "latest", Artifact: digest("2")}}
	if _, err := r.Statement(digest("0")); err == nil {
		t.Error("a base without a digest was released")
	}
}
