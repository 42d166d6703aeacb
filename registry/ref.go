package registry

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
)

// A Place is where an image is.
type Place string

// The places of an image.
const (
	InLayout   Place = "oci"         // a folder with an OCI image layout
	InArchive  Place = "oci-archive" // one tar file of such a layout
	InRegistry Place = "docker"      // a registry, by the distribution protocol
)

const defaultTag = "latest"

// A Ref names an image in its place.
type Ref struct {
	Place  Place
	Path   string // of the folder or file
	Host   string // of the registry, with its port if one is given
	Repo   string // in the registry
	Tag    string // "latest" if neither tag nor digest is given
	Digest string // sha256:…; it decides, whatever the tag says
}

// hostForm and repoForm are those of the distribution specification and of the references that
// Docker and Podman take.
var (
	hostForm = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)
	repoForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
)

// Parse reads a reference:
//
//	oci:DIR[:TAG][@sha256:…]
//	oci-archive:FILE[:TAG][@sha256:…]
//	[docker://]HOST[:PORT]/REPO[:TAG][@sha256:…]
//
// The host has a dot or a port, or is localhost. A colon in DIR or FILE is part of it if what
// follows the last one has a slash or a backslash, or if it follows a drive letter on Windows.
func Parse(s string) (Ref, error) {
	r, err := parse(s, runtime.GOOS == "windows")
	if err != nil {
		return Ref{}, fmt.Errorf("reference %q: %w", s, err)
	}
	return r, nil
}

func parse(s string, windows bool) (Ref, error) {
	if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return Ref{}, errors.New("control character in it")
	}
	var r Ref
	rest, ok := s, false
	if rest, ok = strings.CutPrefix(s, string(InArchive)+":"); ok {
		r.Place = InArchive
	} else if rest, ok = strings.CutPrefix(s, string(InLayout)+":"); ok {
		r.Place = InLayout
	} else {
		r.Place = InRegistry
		rest = strings.TrimPrefix(s, "docker://")
	}

	if i := strings.LastIndex(rest, "@sha256:"); i >= 0 {
		if _, err := digestHex(rest[i+1:]); err != nil {
			return Ref{}, err
		}
		rest, r.Digest = rest[:i], rest[i+1:]
	} else if r.Place == InRegistry && strings.Contains(rest, "@") {
		return Ref{}, errors.New("want @sha256: and 64 hexadecimal digits behind the name")
	}

	name, tag, tagged := cutTag(rest, windows && r.Place != InRegistry)
	switch {
	case strings.HasSuffix(name, "@sha256"):
		_, err := digestHex("sha256:" + tag)
		return Ref{}, err
	case tagged:
		if err := checkTag(tag); err != nil {
			return Ref{}, err
		}
		r.Tag = tag
	case r.Digest == "":
		r.Tag = defaultTag
	}

	if r.Place != InRegistry {
		if name == "" {
			return Ref{}, fmt.Errorf("no path behind %q", r.Place+":")
		}
		if windows && len(name) == 1 && isLetter(name[0]) {
			name = "./" + name // with a tag behind it, it would be a drive
		}
		r.Path = name
		return r, nil
	}
	host, repo, ok := strings.Cut(name, "/")
	if !ok || !hostForm.MatchString(host) || host != "localhost" && !strings.ContainsAny(host, ".:") {
		return Ref{}, errors.New("neither oci:DIR[:TAG] nor oci-archive:FILE[:TAG] nor HOST[:PORT]/REPO[:TAG] with a dot or port in the host")
	}
	if len(name) > 255 || !repoForm.MatchString(repo) {
		return Ref{}, fmt.Errorf("repository %q: want lower-case letters and digits, parted by single . _ - or /", repo)
	}
	r.Host, r.Repo = host, repo
	return r, nil
}

// cutTag cuts what follows the last colon, unless that colon belongs to the name.
func cutTag(s string, drives bool) (name, tag string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || strings.ContainsAny(s[i:], `/\`) {
		return s, "", false
	}
	if drives && i == 1 && isLetter(s[0]) {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// String returns the reference as [Parse] reads it, with its tag or digest.
func (r Ref) String() string {
	s := string(r.Place) + ":" + r.Path
	if r.Place == InRegistry {
		s = r.Host + "/" + r.Repo
	}
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// version is what of the reference is looked up: the digest if it has one.
func (r Ref) version() string {
	if r.Digest != "" {
		return r.Digest
	}
	return r.Tag
}
