package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Media types of an image. The index is a plain OCI index whose artifactType is TypeImage; each
// of its manifests holds one artifact, has the artifact's media type as its artifactType and
// shares one config blob of type TypeConfig, which lists all artifacts.
const (
	TypeImage   = "application/vnd.goldenisc.image.v1"
	TypeConfig  = "application/vnd.goldenisc.config.v1+json"
	TypeContent = "application/vnd.goldenisc.content.v1+mtree" // mtree(5) of the root
	TypeObjects = "application/vnd.goldenisc.objects.v1+json"  // hard links and extended attributes
	TypeReport  = "application/vnd.goldenisc.report.v1+json"   // controls, findings, waivers
	TypeZonecfg = "application/vnd.goldenisc.dock.zonecfg.v1"  // zonecfg(8) command file
	TypeDock    = "application/vnd.goldenisc.dock.v1+json"     // what the host must provide

	// Predicates of attestations; the first two under the names that their makers gave them.
	TypeSPDX       = "application/spdx+json"
	TypeCycloneDX  = "application/vnd.cyclonedx+json"
	TypeProvenance = "application/vnd.goldenisc.provenance.v1+json" // of https://slsa.dev/provenance/v1

	TypeZone = "application/vnd.goldenisc.zone.v1.tar" // + "+gzip" or "+zstd"

	// Of send streams, which may have "+gzip" or "+zstd" as well: full ones, and increments, whose kind
	// is KindIncrement.
	TypeZFS         = "application/vnd.goldenisc.zfs.v1.stream"
	TypeZFSMap      = "application/vnd.goldenisc.zfs.v1.map"          // numbers of the objects, for increments; may be compressed
	TypeZFSPaths    = "application/vnd.goldenisc.zfs.v1.paths+json"   // what stands elsewhere in the dataset than in the root
	TypeZPool       = "application/vnd.goldenisc.zfs.v1.pool"         // a whole pool; may be compressed
	TypeImgmanifest = "application/vnd.goldenisc.imgmanifest.v1+json" // image manifest v2 of imgadm(8)
	TypeZadm        = "application/vnd.goldenisc.zadm.v1+json"        // index of images that zadm(8) reads

	// Disks of virtual machines; RawDisk and VHD may have "+gzip" or "+zstd", GCP has "+gzip".
	TypeOVA     = "application/vnd.goldenisc.ova.v1.tar"
	TypeRawDisk = "application/vnd.goldenisc.disk.v1.raw"
	TypeQCOW2   = "application/vnd.goldenisc.disk.v1.qcow2"
	TypeVMDK    = "application/vnd.goldenisc.disk.v1.vmdk"
	TypeVHD     = "application/vnd.goldenisc.disk.v1.vhd"
	TypeGCP     = "application/vnd.goldenisc.disk.v1.gcp.tar"
	TypeGolden  = "application/vnd.goldenisc.disk.v1.golden+json" // what a system disk must have before it starts
)

// KindIncrement is the kind of a send stream that leads from another image, Artifact.From, to this one.
const KindIncrement = "zfs-incremental"

// Attributes of send streams and their maps. An increment needs a base of the same profile, layout,
// platform and brand.
const (
	AttrProfile  = "profile"  // zpl5 or zpl4
	AttrLayout   = "layout"   // top: the dataset is the root; root: it is a zonepath
	AttrPlatform = "platform" // linux, illumos or freebsd: whose device numbers and attributes it has
	AttrBrand    = "brand"    // of the zone, on illumos
	AttrGUID     = "guid"     // of the snapshot, decimal, as zfs get prints it
	AttrFromGUID = "fromGuid" // of the snapshot that an increment needs
)

// A Config describes a whole image: what was built from what, and its artifacts. It is stored as
// strict JSON: unknown members, duplicates and trailing data are refused (docs/format.md).
type Config struct {
	Schema  int       `json:"schema"` // 1
	Name    string    `json:"name"`
	Version string    `json:"version"`
	OS      string    `json:"os"`   // illumos, solaris or linux
	Arch    string    `json:"arch"` // as GOARCH
	Created time.Time `json:"created"`
	Base    Base      `json:"base"`
	Profile string    `json:"profile"`

	Services []Service `json:"services,omitempty"`
	Mutable  []Mutable `json:"mutable,omitempty"`
	Volumes  []Volume  `json:"volumes,omitempty"`
	Scratch  string    `json:"scratch,omitempty"` // absolute path of the ephemeral file system
	Waivers  []Waiver  `json:"waivers,omitempty"`

	Artifacts []Artifact `json:"artifacts"`
}

// A Base is what an image was built from.
type Base struct {
	Source string `json:"source"`           // as written in the spec
	Digest string `json:"digest,omitempty"` // sha256:… of the file, the manifest, or the content manifest of a folder
	// Provenance is the digest of the artifact "provenance" of a base that is one of our images.
	Provenance string `json:"provenance,omitempty"`
	Release    string `json:"release,omitempty"` // what the base says of itself, such as "OmniOS v11 r151054"
}

// A Service is started at boot.
type Service struct {
	Name   string   `json:"name"`
	ID     string   `json:"id"` // FMRI or unit name
	Exec   string   `json:"exec"`
	User   string   `json:"user,omitempty"`
	Listen []string `json:"listen,omitempty"` // "8080/tcp"
	Health string   `json:"health,omitempty"`
}

// A Mutable is a set of paths that may differ from the golden content without being drift.
type Mutable struct {
	Paths []string `json:"paths"` // patterns of [NewMatcher]
	Rule  string   `json:"rule"`  // any, append or reset
}

// A Volume is a directory that outlives reset and upgrade.
type Volume struct {
	Path string `json:"path"` // absolute
	Size int64  `json:"size,omitempty"`
}

// A Waiver excuses a control until a date.
type Waiver struct {
	Control string `json:"control"`
	Reason  string `json:"reason"`
	Until   string `json:"until"` // YYYY-MM-DD
}

// Ended reports whether the waiver's last day is before that of a time.
func (w Waiver) Ended(at time.Time) bool { return at.Format(time.DateOnly) > w.Until }

// An Artifact is one blob of an image.
type Artifact struct {
	Name      string `json:"name"` // unique in the image: "zone", "content", "dock/zonecfg"
	Kind      string `json:"kind"` // "zone", "content", …; several artifacts may be of one kind
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"` // sha256:… of the blob
	Size      int64  `json:"size"`   // bytes of the blob
	// From is the digest of the image that an increment starts from.
	From string `json:"from,omitempty"`
	// Of what the blob unpacks to, if it is compressed.
	UncompressedDigest string            `json:"uncompressedDigest,omitempty"`
	UncompressedSize   int64             `json:"uncompressedSize,omitempty"`
	Attributes         map[string]string `json:"attributes,omitempty"` // of the kind, such as dialect and brand
}

// Artifact returns the artifact of this name, or nil.
func (c *Config) Artifact(name string) *Artifact {
	for i := range c.Artifacts {
		if c.Artifacts[i].Name == name {
			return &c.Artifacts[i]
		}
	}
	return nil
}

// MaxConfig bounds a config blob, in bytes.
const MaxConfig = 4 << 20

// Marshal encodes the config. The bytes depend on its values only.
func (c *Config) Marshal() ([]byte, error) {
	return json.Marshal(c)
}

// ParseConfig decodes a config strictly and checks what its users rely on.
func ParseConfig(data []byte) (*Config, error) {
	c := new(Config)
	if err := DecodeStrict(data, c); err != nil {
		return nil, fmt.Errorf("image config: %w", err)
	}
	if c.Schema != 1 {
		return nil, fmt.Errorf("image config: schema %d: this program knows 1", c.Schema)
	}
	seen := map[string]bool{}
	for _, a := range c.Artifacts {
		switch {
		case a.Name == "" || seen[a.Name]:
			return nil, fmt.Errorf("image config: artifact %q: its name is empty or taken", a.Name)
		case a.Size < 0 || a.UncompressedSize < 0:
			return nil, fmt.Errorf("image config: artifact %q: negative size", a.Name)
		}
		seen[a.Name] = true
	}
	// Members in another case or order would be understood differently by other readers.
	if again, err := c.Marshal(); err != nil || !bytes.Equal(again, data) {
		return nil, errors.Join(errors.New("image config: not in canonical form"), err)
	}
	return c, nil
}

// DecodeStrict decodes one JSON document into v and refuses unknown members, duplicate members
// and trailing data, so that no two readers of signed bytes can understand them differently.
func DecodeStrict(data []byte, v any) error {
	if err := noDuplicates(json.NewDecoder(bytes.NewReader(data)), 0); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("data after the document at byte %d", d.InputOffset())
	}
	return nil
}

// maxNesting bounds how deep a document is nested, which tokens, unlike values, are read without
// bound. Ours are not deeper than 5.
const maxNesting = 32

// noDuplicates reads one value and refuses an object with the same member twice.
func noDuplicates(d *json.Decoder, depth int) error {
	if depth > maxNesting {
		return fmt.Errorf("nested more than %d deep at byte %d", maxNesting, d.InputOffset())
	}
	tok, err := d.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if delim == '{' {
			key, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := key.(string)
			if seen[name] {
				return fmt.Errorf("member %q twice", name)
			}
			seen[name] = true
		}
		if err := noDuplicates(d, depth+1); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}
