package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Media types of the OCI image specification, and of Docker's images, which bases may have.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar" // + "+gzip" or "+zstd"

	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

// Annotations of the OCI image specification (annotations.md). They are hints: nothing is decided
// by them but the name of a tag in a layout.
const (
	annotationRefName = "org.opencontainers.image.ref.name"
	annotationTitle   = "org.opencontainers.image.title"
	annotationVersion = "org.opencontainers.image.version"
	annotationCreated = "org.opencontainers.image.created"
)

// Bounds of what others wrote.
const (
	maxManifest  = 4 << 20 // bytes of a manifest or index: what registries accept and clients read
	maxManifests = 4096    // of one index
	maxLayers    = 4096    // of one manifest
	maxDepth     = 4       // of an index in an index
)

// ErrUndetermined says that a question ("is there such a tag, are there signatures?") got no answer:
// the registry was not reached, was too busy or broke off. It never means no.
var ErrUndetermined = errors.New("could not be determined")

// ErrMismatch is the kind of error of bytes that are not those that their digest promises.
var ErrMismatch = errors.New("digest mismatch")

// A Descriptor points to a blob or manifest (descriptor.md). Its members are those we act on;
// others are preserved only in index.json.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Digest       string            `json:"digest"` // sha256:…
	Size         int64             `json:"size"`   // bytes
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
}

// A Platform is what an image of an index runs on (image-index.md). Descriptors of what is no
// root file system say unknown/unknown, so that no client picks them.
type Platform struct {
	Architecture string   `json:"architecture"`
	OS           string   `json:"os"`
	OSVersion    string   `json:"os.version,omitempty"`
	OSFeatures   []string `json:"os.features,omitempty"`
	Variant      string   `json:"variant,omitempty"`
}

func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

var unknown = Platform{Architecture: "unknown", OS: "unknown"}

// bare is d without what an index says of it: what is the same wherever the blob is.
func (d Descriptor) bare() Descriptor {
	return Descriptor{MediaType: d.MediaType, ArtifactType: d.ArtifactType, Digest: d.Digest, Size: d.Size}
}

func (d Descriptor) check() error {
	if _, err := digestHex(d.Digest); err != nil {
		return err
	}
	if d.Size < 0 {
		return fmt.Errorf("descriptor of %s: negative size", d.Digest)
	}
	return nil
}

func isManifest(mediaType string) bool {
	return mediaType == typeManifest || mediaType == typeDockerManifest
}

func isIndex(mediaType string) bool {
	return mediaType == typeIndex || mediaType == typeDockerList
}

// digestHex returns the 64 digits of a sha256 digest. Only what passes here becomes part of a path
// or a URL.
func digestHex(digest string) (string, error) {
	h, ok := strings.CutPrefix(digest, "sha256:")
	if !ok || !isHex(h) {
		return "", fmt.Errorf("digest %q: want sha256: and 64 lower-case hexadecimal digits", digest)
	}
	return h, nil
}

func isHex(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}

// Digest returns the digest of data as it stands in descriptors.
func Digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// verifier reads a blob and reports, in the place of io.EOF, that it is not the one described. It
// reads one byte more than described at most.
type verifier struct {
	r    io.ReadCloser
	what Descriptor
	left int64
	hash hashWriter
	err  error
}

type hashWriter interface {
	io.Writer
	Sum([]byte) []byte
}

func verify(r io.ReadCloser, what Descriptor) io.ReadCloser {
	return &verifier{r: r, what: what, left: what.Size, hash: sha256.New()}
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if int64(len(p)) > v.left+1 {
		p = p[:v.left+1]
	}
	n, err := v.r.Read(p)
	if int64(n) > v.left {
		v.err = fmt.Errorf("blob %s: %w: longer than the %d bytes of its descriptor", v.what.Digest, ErrMismatch, v.what.Size)
		return int(v.left), v.err
	}
	v.hash.Write(p[:n])
	v.left -= int64(n)
	if err == nil {
		return n, nil
	}
	v.err = err
	if err == io.EOF {
		if v.left > 0 {
			v.err = fmt.Errorf("blob %s: ends after %d of %d bytes: %w", v.what.Digest, v.what.Size-v.left, v.what.Size, io.ErrUnexpectedEOF)
		} else if sum := "sha256:" + hex.EncodeToString(v.hash.Sum(nil)); sum != v.what.Digest {
			v.err = fmt.Errorf("blob %s: %w: its bytes have the digest %s", v.what.Digest, ErrMismatch, sum)
		}
	}
	return n, v.err
}

func (v *verifier) Close() error { return v.r.Close() }

// readVerified reads all of a small blob.
func readVerified(r io.ReadCloser, what Descriptor, limit int64) ([]byte, error) {
	defer r.Close()
	if err := what.check(); err != nil {
		return nil, err
	}
	if what.Size > limit {
		return nil, fmt.Errorf("blob %s: %d bytes are more than the %d allowed", what.Digest, what.Size, limit)
	}
	return io.ReadAll(verify(r, what))
}
