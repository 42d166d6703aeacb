package host

import "time"

// SetLearnAge lets a check mark what has just changed, and returns what undoes that.
func SetLearnAge(d time.Duration) func() {
	old := learnAge
	learnAge = d
	return func() { learnAge = old }
}
