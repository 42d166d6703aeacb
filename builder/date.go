package builder

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// SourceDate reads SOURCE_DATE_EPOCH (reproducible-builds.org/specs/source-date-epoch) from the
// environment; it is zero if that is not set.
func SourceDate() (time.Time, error) {
	v := os.Getenv("SOURCE_DATE_EPOCH")
	if v == "" {
		return time.Time{}, nil
	}
	sec, err := strconv.ParseInt(v, 10, 64)
	if err != nil || sec < 0 || sec > 1<<33-1 {
		return time.Time{}, Input(fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", v))
	}
	return time.Unix(sec, 0).UTC(), nil
}
