package ovf

import (
	"bytes"
	"math"
	"testing"
)

func TestEstimate(t *testing.T) {
	disk := mixedDisk(60 << 20)
	src := Source{Content: bytes.NewReader(disk), Size: int64(len(disk))}
	_, v := writeTest(t, src, WriteOptions{Level: Fast})
	n, err := estimate(t.Context(), src, Fast, 0, 300)
	if err != nil {
		t.Fatal(err)
	}
	if d := math.Abs(float64(n)/float64(v.Size) - 1); d > 0.15 {
		t.Errorf("%d bytes, told were %d", v.Size, n)
	}
	again, err := estimate(t.Context(), src, Fast, 0, 300)
	if err != nil || again != n {
		t.Errorf("%d, then %d, %v", n, again, err)
	}
	// What fits anyway is not read, and the bound is one, also of what does not compress.
	noise := bytes.Repeat(deflateSamples()["noise"], 40)
	_, v = writeTest(t, Source{Content: bytes.NewReader(noise), Size: int64(len(noise))}, WriteOptions{})
	n, err = EstimateVMDK(t.Context(), Source{Content: unread{t: t}, Size: int64(len(noise))}, Default)
	if err != nil || n < v.Size || n > v.Size*11/10 {
		t.Errorf("%d bytes, the bound is %d, %v", v.Size, n, err)
	}
	if _, err := EstimateVMDK(t.Context(), Source{Content: bytes.NewReader(nil), Size: 10 << 30}, Small); err == nil {
		t.Error("a disk that ends early is estimated")
	}
	for _, bad := range []Source{{}, {Size: MaxCapacity + 1}, {Size: 10, Extents: []Extent{{5, 6}}}} {
		if _, err := EstimateVMDK(t.Context(), bad, Default); err == nil {
			t.Errorf("%+v is estimated", bad)
		}
	}
}
