package profiles

import "strings"

// Area returns the heading of the catalogue that a control stands under, by its id.
func Area(id string) string {
	for _, a := range areas {
		if strings.HasPrefix(id, a.letter) {
			return a.title
		}
	}
	return ""
}
