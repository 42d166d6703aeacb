package zfs

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Values of properties (sys/fs/zfs.h), by name.
var (
	onOff = map[string]uint64{"off": 0, "on": 1}

	indexProperties = map[string]map[string]uint64{
		"atime":    onOff,
		"canmount": {"off": 0, "on": 1, "noauto": 2},
		"compression": {
			"on": 1, "off": compressOff, "lzjb": compressLZJB, "gzip": 10, "zle": compressZLE, "lz4": compressLZ4,
			"gzip-1": 5, "gzip-2": 6, "gzip-3": 7, "gzip-4": 8, "gzip-5": 9, "gzip-6": 10, "gzip-7": 11, "gzip-8": 12, "gzip-9": compressGzip9,
		},
		"copies":         {"1": 1, "2": 2, "3": 3},
		"devices":        onOff,
		"exec":           onOff,
		"logbias":        {"latency": 0, "throughput": 1},
		"nbmand":         onOff,
		"primarycache":   {"none": 0, "metadata": 1, "all": 2},
		"readonly":       onOff,
		"relatime":       onOff,
		"secondarycache": {"none": 0, "metadata": 1, "all": 2},
		"setuid":         onOff,
		"snapdir":        {"hidden": 0, "visible": 1},
		"sync":           {"standard": 0, "always": 1, "disabled": 2},
		"xattr":          {"off": 0, "dir": 1, "sa": 2},
		"acltype":        {"off": 0, "posix": 1, "posixacl": 1, "noacl": 0},
		"zoned":          onOff,
	}

	maxProperty = 8 << 10 // bytes of a user property
)

// properties returns the entries of a dataset's properties, sorted, and all that is wrong with them.
func properties(props map[string]string) ([]zapEntry, error) {
	var entries []zapEntry
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(props)) {
		e, err := property(name, props[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("property %q: %w", name, err))
		}
		entries = append(entries, e)
	}
	return entries, errors.Join(errs...)
}

func property(name, value string) (zapEntry, error) {
	text := func(ok bool) (zapEntry, error) {
		if !ok || strings.IndexByte(value, 0) >= 0 {
			return zapEntry{}, fmt.Errorf("value %q", value)
		}
		return zapEntry{name: name, text: value + "\x00"}, nil
	}
	if values, ok := indexProperties[name]; ok {
		v, ok := values[value]
		if !ok {
			return zapEntry{}, fmt.Errorf("value %q: not one of %s", value, strings.Join(slices.Sorted(maps.Keys(values)), ", "))
		}
		return zapEntry{name: name, value: v}, nil
	}
	switch {
	case name == "mountpoint":
		return text(value == "none" || value == "legacy" || strings.HasPrefix(value, "/") && len(value) <= maxTarget)
	case name == "sharenfs", name == "sharesmb":
		return text(value != "")
	case name == "recordsize":
		v, err := strconv.ParseUint(strings.TrimSuffix(value, "K"), 10, 32)
		if strings.HasSuffix(value, "K") {
			v <<= 10
		}
		if err != nil || v < minBlock || v > recordSize || v&(v-1) != 0 {
			return zapEntry{}, fmt.Errorf("value %q: not a power of two from %d to %d", value, minBlock, recordSize)
		}
		return zapEntry{name: name, value: v}, nil
	case strings.Contains(name, ":"):
		if len(name) > maxNameLen || strings.ContainsAny(name, "\x00@/") || strings.ToLower(name) != name {
			return zapEntry{}, errors.New("no name for a user property")
		}
		return text(len(value) < maxProperty)
	}
	return zapEntry{}, errors.New("not one that is known here")
}
