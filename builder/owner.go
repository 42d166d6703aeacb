package builder

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/internal/hcltext"
)

// chown sets the owner of e by names or numbers of the tree's own accounts. Empty is root.
func chown(t *image.Tree, e *image.Entry, owner, group string) (err error) {
	if e.UID, err = accountID(t, "etc/passwd", owner); err != nil {
		return fmt.Errorf("%q: owner: %w", e.Name, err)
	}
	if e.GID, err = accountID(t, "etc/group", group); err != nil {
		return fmt.Errorf("%q: group: %w", e.Name, err)
	}
	return nil
}

// accountID looks a name up in the file of accounts, passwd(5) or group(5), whose first field is
// the name and whose third is the number.
func accountID(t *image.Tree, file, name string) (int, error) {
	if name == "" || name == "root" {
		return 0, nil
	}
	if id, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(id), nil
	}
	data, err := t.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("%q: %w", name, err)
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 3 {
			continue
		}
		if f[0] == name {
			id, err := strconv.ParseUint(f[2], 10, 31)
			if err != nil {
				return 0, fmt.Errorf("%s: %q has no number: %w", file, name, err)
			}
			return int(id), nil
		}
		names = append(names, f[0])
	}
	return 0, Input(fmt.Errorf("%s has no %q.%s", file, name, hcltext.Suggest(name, names)))
}
