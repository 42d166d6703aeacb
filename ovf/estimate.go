package ovf

import (
	"context"
	"fmt"
)

// sampleGrains is how many grains are compressed for an estimate. That of a disk of programs and data is
// then right to a few percent.
const sampleGrains = 2048

// EstimateVMDK returns about how many bytes [WriteVMDK] writes for a disk. If it cannot be more than what
// fits in an OVA, whatever the disk holds, nothing is read and that bound is the result; otherwise
// it is told by a sample, the same each time.
func EstimateVMDK(ctx context.Context, src Source, level Level) (int64, error) {
	n, err := estimate(ctx, src, level, MaxMember, sampleGrains)
	if err != nil {
		return 0, fmt.Errorf("estimate VMDK: %w", err)
	}
	return n, nil
}

func estimate(ctx context.Context, src Source, level Level, enough, sample int64) (int64, error) {
	if err := src.check(); err != nil {
		return 0, err
	}
	e, ok := efforts[level]
	if !ok {
		return 0, fmt.Errorf("level %d is not known", level)
	}
	extents, _, err := src.stored()
	if err != nil {
		return 0, err
	}
	var grains int64
	for range grainsOf(extents) {
		grains++
	}
	head := streamHeader(src.capacity())
	tables := int64(head.tables())
	fixed := (int64(head.Overhead)+4)*sectorSize + tables*(tableSectors+1)*sectorSize + tables*4 + sectorSize
	const most = (markerHeader + GrainSize + 512 + sectorSize - 1) / sectorSize * sectorSize
	if bound := fixed + grains*most; bound <= enough {
		return bound, nil
	}
	stride := max(1, grains/sample)
	var at, taken, size int64
	z := newDeflater(e, maxDistance)
	job := new(slot)
	next := int64(0)
	for number, parts := range grainsOf(extents) {
		if at++; at-1 != next {
			continue
		}
		// One of each stride, not always the same one: what a disk holds may have a period.
		taken++
		next = taken*stride + int64(uint64(taken)*0x9e3779b97f4a7c15>>32)%stride
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		job.number, job.parts = number, parts
		if err := job.compress(src.Content, z, packGrain); err != nil {
			return 0, err
		}
		size += int64(len(job.out)+sectorSize-1) / sectorSize * sectorSize
	}
	return fixed + int64(float64(size)/float64(taken)*float64(grains)), nil
}
