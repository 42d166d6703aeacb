package zfsfake

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func (s *session) property(name, prop string) (string, error) {
	if strings.Contains(name, "@") {
		d, x, err := s.snap(name)
		if err != nil {
			return "", err
		}
		switch prop {
		case "guid":
			return strconv.FormatUint(x.GUID, 10), nil
		case "defer_destroy":
			return onOff(x.Deferred, "on", "off"), nil
		}
		if since, ok := strings.CutPrefix(prop, "written@"); ok {
			for _, y := range d.Snapshots {
				if y.Name == since {
					same, err := equal(s.path(y.Dir), s.path(x.Dir))
					return onOff(same, "0", "1024"), err
				}
			}
		}
		return "", usageError("invalid property " + prop)
	}
	d, err := s.dataset(name)
	if err != nil {
		return "", err
	}
	switch prop {
	case "name":
		return name, nil
	case "type":
		return "filesystem", nil
	case "version":
		return "5", nil
	case "mounted":
		return onOff(d.Mounted != "", "yes", "no"), nil
	case "mountpoint":
		return s.mountpoint(name), nil
	case "origin":
		return onOff(d.Origin != "", d.Origin, "-"), nil
	case "encryption", "keyformat":
		return onOff(d.Props[prop] != "", d.Props[prop], "off"), nil
	case "encryptionroot":
		return onOff(d.Props["encryption"] != "", name, "-"), nil
	case "keystatus":
		return onOff(d.NoKey, "unavailable", "available"), nil
	}
	if strings.Contains(prop, ":") {
		for n := name; n != ""; n = parent(n) {
			if v, ok := s.state.Datasets[n].Props[prop]; ok {
				return v, nil
			}
		}
		return "-", nil
	}
	return "", usageError("invalid property " + prop)
}

func onOff(on bool, yes, no string) string {
	if on {
		return yes
	}
	return no
}

func (s *session) get(o map[byte][]string, a []string) error {
	if !slices.Equal(o['o'], []string{"property,value"}) || o['H'] == nil || o['p'] == nil {
		return usageError("only -H -p -o property,value")
	}
	for _, p := range strings.Split(a[0], ",") {
		v, err := s.property(a[1], p)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s\t%s\n", p, v)
	}
	return nil
}

func (s *session) list(o map[byte][]string, a []string) error {
	if o['H'] == nil || o['r'] == nil || len(o['t']) != 1 || len(o['o']) != 1 {
		return usageError("only -H -r -t TYPE -o FIELDS")
	}
	if _, err := s.dataset(a[0]); err != nil {
		return err
	}
	names := []string{}
	for n := range s.state.Datasets {
		if n == a[0] || strings.HasPrefix(n, a[0]+"/") {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	row := func(name string) error {
		var values []string
		for _, f := range strings.Split(o['o'][0], ",") {
			v := name
			if f != "name" {
				var err error
				var not usageError
				if v, err = s.property(name, f); errors.As(err, &not) {
					v = "-" // of the other type
				} else if err != nil {
					return err
				}
			}
			values = append(values, v)
		}
		fmt.Fprintln(s.out, strings.Join(values, "\t"))
		return nil
	}
	kinds := strings.Split(o['t'][0], ",")
	for _, n := range names {
		if slices.Contains(kinds, "filesystem") {
			if err := row(n); err != nil {
				return err
			}
		}
		if !slices.Contains(kinds, "snapshot") {
			continue
		}
		for _, x := range s.state.Datasets[n].Snapshots {
			if err := row(n + "@" + x.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// equal reports whether two folders hold the same.
func equal(a, b string) (bool, error) {
	one, err := describe(a)
	if err != nil {
		return false, err
	}
	two, err := describe(b)
	return one == two, err
}

func describe(dir string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fmt.Fprintf(&b, "%q %v", rel, info.Mode())
		if info.Mode()&fs.ModeSymlink == 0 { // whose times copies do not keep
			fmt.Fprintf(&b, " %d", info.ModTime().UnixNano())
		}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(p)
			fmt.Fprintf(&b, " %q", to)
			if err != nil {
				return err
			}
		case info.Mode().IsRegular():
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %q", data)
		}
		b.WriteByte('\n')
		return nil
	})
	return b.String(), err
}
