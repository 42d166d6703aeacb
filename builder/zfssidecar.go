package builder

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"strings"

	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/profiles"
	"github.com/goldenisc/packer-plugin-isc/registry"
	"github.com/goldenisc/packer-plugin-isc/zfs"
)

// fileSums are the digests of an artifact that only sidecars have.
type fileSums struct{ sha1 hash.Hash }

func newFileSums() *fileSums { return &fileSums{sha1.New()} }

func (f *fileSums) Write(p []byte) (int, error) { return f.sha1.Write(p) }

// An Imgmanifest is an image manifest, version 2, with what imgadm(8) of SmartOS wants of one and what
// an IMGAPI server has to add (sdc-imgapi, docs/index.md). Its digest is SHA-1: it finds a damaged
// file, and vouches for nobody.
type Imgmanifest struct {
	V            int               `json:"v"` // 2
	UUID         string            `json:"uuid"`
	Owner        string            `json:"owner"` // all zeros: nobody
	Name         string            `json:"name"`
	Version      string            `json:"version"`
	Description  string            `json:"description,omitempty"`
	State        string            `json:"state"`
	Disabled     bool              `json:"disabled"`
	Public       bool              `json:"public"`
	PublishedAt  string            `json:"published_at"`
	Type         string            `json:"type"` // zone-dataset or lx-dataset
	OS           string            `json:"os"`   // smartos or linux
	Files        []ImgmanifestFile `json:"files"`
	Requirements ImgRequirements   `json:"requirements"`
	Tags         map[string]string `json:"tags,omitempty"`
}

// An ImgmanifestFile is the stream as it is stored.
type ImgmanifestFile struct {
	SHA1        string `json:"sha1"`
	Size        int64  `json:"size"`
	Compression string `json:"compression"` // none or gzip
	DatasetGUID string `json:"dataset_guid"`
}

// ImgRequirements are what a zone needs.
type ImgRequirements struct {
	Networks    []ImgNetwork      `json:"networks"`
	Brand       string            `json:"brand"`
	MinPlatform map[string]string `json:"min_platform,omitempty"`
}

// An ImgNetwork is an interface that a zone needs.
type ImgNetwork struct {
	Name        string `json:"name"`
	Description string `json:"description"`
}

// A ZadmImage is an entry of the index of images that zadm(8) of OmniOS reads (Zadm::Image::OmniOS).
type ZadmImage struct {
	UUID        string `json:"uuid"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Version     string `json:"version"`
	Path        string `json:"path"` // of the stream, below the folder of the index
	Brand       string `json:"brand"`
	Type        string `json:"type"` // …-dataset: a stream
	Comp        string `json:"comp"` // suffix of the file that it is downloaded to
	SHA256      string `json:"sha256"`
}

// A ZadmIndex is that index.
type ZadmIndex struct {
	Images []ZadmImage `json:"images"`
}

// smartOSVersion is the key of platform versions in min_platform: all of SmartOS since 2013.
const smartOSVersion = "7.0"

// lxKernel is the Linux kernel that the lx brand says it is, as in the zonecfg(8) files.
const lxKernel = "5.10.0"

// uuidOf returns a UUID, version 8 (RFC 9562), by content: a stream's guid says all that is in it.
func uuidOf(name, version string, guid string) string {
	sum := sha256.Sum256([]byte("iscadm image\x00" + name + "\x00" + version + "\x00" + guid))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	h := hex.EncodeToString(sum[:16])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// suffixes are those of files.
var suffixes = map[string]string{string(image.None): "zfs", string(image.Gzip): "zfs.gz", string(image.Zstd): "zfs.zst"}

// sidecars writes what the programs that install the stream want to have beside it.
func (z *ZFS) sidecars(ctx context.Context, id string, src *Source, to *registry.Stage, full *image.Artifact, sums *fileSums, place *placement) ([]image.Artifact, error) {
	img := src.Spec.Image
	brand := z.brand(img.OS)
	var list []image.Artifact
	add := func(name, kind, mediaType string, data []byte, err error) error {
		if err == nil {
			var a image.Artifact
			a, err = put(ctx, to, image.Artifact{Name: id + "/" + name, Kind: kind, MediaType: mediaType}, image.None, bytesOf(data))
			list = append(list, a)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	if place.paths != nil {
		data, err := place.paths.Marshal()
		if err := add("paths", "zfs-paths", image.TypeZFSPaths, data, err); err != nil {
			return nil, err
		}
	}
	if z.platform(img.OS) != zfs.Illumos {
		return list, nil
	}
	uuid := uuidOf(img.Name, img.Version, full.Attributes[image.AttrGUID])
	if z.Layout == layoutRoot {
		data, err := marshalJSON(z.imgmanifest(uuid, brand, src, full, sums))
		if err := add("imgmanifest", "imgmanifest", image.TypeImgmanifest, data, err); err != nil {
			return nil, err
		}
	}
	if brand == brandJoyent {
		return list, nil
	}
	if brand == "illumos" || z.Layout == layoutRoot {
		data, err := marshalJSON(&ZadmIndex{Images: []ZadmImage{{
			UUID: uuid, Name: img.Name, Description: img.Description, Version: img.Version,
			Path: img.Name + "-" + img.Version + "." + suffixes[z.Compression], Brand: brand, Type: datasetType(brand),
			Comp: suffixes[z.Compression], SHA256: strings.TrimPrefix(full.Digest, "sha256:"),
		}}})
		if err := add("zadm", "zadm", image.TypeZadm, data, err); err != nil {
			return nil, err
		}
	}
	text, err := src.Spec.Layout.Zonecfg(src.Selection, brand)
	if err == nil {
		var cfg image.Artifact
		cfg, err = put(ctx, to, image.Artifact{
			Name: "dock/" + id + "/zonecfg", Kind: "zonecfg", MediaType: image.TypeZonecfg, Attributes: map[string]string{"brand": brand},
		}, image.None, bytesOf(text))
		list = append(list, cfg)
	}
	return list, err
}

// datasetType is the type of an image in both indexes.
func datasetType(brand string) string {
	if brand == brandLX {
		return "lx-dataset"
	}
	return "zone-dataset"
}

func (z *ZFS) imgmanifest(uuid, brand string, src *Source, full *image.Artifact, sums *fileSums) *Imgmanifest {
	img := src.Spec.Image
	m := &Imgmanifest{
		V: 2, UUID: uuid, Owner: "00000000-0000-0000-0000-000000000000", Name: img.Name, Version: img.Version,
		Description: img.Description, State: "active", Public: true,
		PublishedAt: src.Created.UTC().Format("2006-01-02T15:04:05Z"), Type: datasetType(brand), OS: "smartos",
		Files: []ImgmanifestFile{{
			SHA1: hex.EncodeToString(sums.sha1.Sum(nil)), Size: full.Size, Compression: z.Compression, DatasetGUID: full.Attributes[image.AttrGUID],
		}},
		Requirements: ImgRequirements{Networks: []ImgNetwork{{Name: "net0", Description: "public"}}, Brand: brand},
	}
	if z.MinPlatform != "" {
		m.Requirements.MinPlatform = map[string]string{smartOSVersion: z.MinPlatform}
	}
	if img.OS == profiles.Linux {
		m.OS, m.Tags = "linux", map[string]string{"kernel_version": lxKernel, "role": "os"}
	}
	return m
}

// marshalJSON encodes v as one line.
func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}
