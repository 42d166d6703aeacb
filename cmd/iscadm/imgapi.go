package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/builder"
	"github.com/goldenisc/packer-plugin-isc/image"
	"github.com/goldenisc/packer-plugin-isc/registry"
)

// An imgapiImage is an image as IMGAPI has it (sdc-imgapi, docs/index.md): a manifest, and a stream.
type imgapiImage struct {
	builder.Imgmanifest
	raw    json.RawMessage // the manifest as it is in the image, signed with it
	stream *image.Artifact
	from   *registry.Image
}

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// imgapiImages returns the images for SmartOS that one of ours holds.
func imgapiImages(ctx context.Context, m *registry.Image) ([]imgapiImage, error) {
	var list []imgapiImage
	for i := range m.Config.Artifacts {
		a := &m.Config.Artifacts[i]
		if a.MediaType != image.TypeImgmanifest {
			continue
		}
		g := imgapiImage{from: m, stream: m.Config.Artifact(strings.TrimSuffix(a.Name, "/imgmanifest"))}
		data, err := read(ctx, m, a.Name)
		if err == nil {
			err = json.Unmarshal(data, &g.Imgmanifest)
		}
		if err == nil && (g.stream == nil || len(g.Files) != 1 || g.Files[0].Size != g.stream.Size || !uuidForm.MatchString(g.UUID)) {
			err = errors.New("is not that of the stream beside it")
		}
		if err != nil {
			return nil, fmt.Errorf("image %s: artifact %q: %w", m.Digest(), a.Name, err)
		}
		g.raw = json.RawMessage(strings.TrimSpace(string(data)))
		list = append(list, g)
	}
	return list, nil
}

// sortImages orders images by date, as IMGAPI does, and takes out those that are there twice.
func sortImages(list []imgapiImage) []imgapiImage {
	slices.SortFunc(list, func(a, b imgapiImage) int {
		return cmp.Or(strings.Compare(a.PublishedAt, b.PublishedAt), strings.Compare(a.UUID, b.UUID))
	})
	return slices.CompactFunc(list, func(a, b imgapiImage) bool { return a.UUID == b.UUID })
}

// An imgapi answers what imgadm(8) asks a source of images, from the layouts below a folder. Every
// question looks at them anew, as an image may have been pushed.
type imgapi struct{ dir string }

// pong is what imgadm(8) knows an IMGAPI server by.
const pong = `{"ping":"pong","version":"1.0.0","imgapi":true}` + "\n"

// maxListed is how many images IMGAPI lists at once; clients ask for more with a marker.
const maxListed = 1000

// serves reports whether a path is one of IMGAPI.
func (s imgapi) serves(path string) bool {
	return path == "/ping" || path == "/images" || strings.HasPrefix(path, "/images/")
}

func (s imgapi) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		s.fail(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "this source is read-only")
		return
	}
	if r.URL.Path == "/ping" {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, pong)
		return
	}
	images, closer, err := s.images(r.Context())
	if err != nil {
		s.fail(w, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	defer closer()
	rest := strings.Trim(strings.TrimPrefix(r.URL.Path, "/images"), "/")
	if rest == "" {
		s.list(w, r, images)
		return
	}
	uuid, part, _ := strings.Cut(rest, "/")
	i := slices.IndexFunc(images, func(g imgapiImage) bool { return g.UUID == uuid })
	switch {
	case i < 0 || part != "" && part != "file":
		s.fail(w, http.StatusNotFound, "ResourceNotFound", fmt.Sprintf("there is no %q", r.URL.Path))
	case part == "":
		s.document(w, images[i].raw)
	default:
		s.file(w, r, &images[i])
	}
}

func (s imgapi) document(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func (s imgapi) fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"code": code, "message": message})
}

// list answers ListImages with the filters that imgadm(8) uses. A marker is the last image that was
// listed, and begins the next list.
func (s imgapi) list(w http.ResponseWriter, r *http.Request, images []imgapiImage) {
	q := r.URL.Query()
	limit := maxListed
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxListed {
			s.fail(w, http.StatusUnprocessableEntity, "InvalidParameter", fmt.Sprintf("limit %q: from 1 to %d", text, maxListed))
			return
		}
		limit = n
	}
	marker := q.Get("marker")
	out := []json.RawMessage{}
	for _, g := range images {
		if marker != "" && g.UUID != marker && g.PublishedAt != marker {
			continue
		}
		marker = ""
		matches := true
		for key, value := range map[string]string{"name": g.Name, "version": g.Version, "os": g.OS, "type": g.Type, "state": g.State, "owner": g.Owner, "uuid": g.UUID} {
			if want := q.Get(key); want != "" && want != value && want != "all" {
				matches = matches && strings.HasPrefix(want, "~") && strings.Contains(value, want[1:])
			}
		}
		if matches && len(out) < limit {
			out = append(out, g.raw)
		}
	}
	s.document(w, out)
}

// file sends the stream; imgadm(8) holds it against the manifest.
func (s imgapi) file(w http.ResponseWriter, r *http.Request, g *imgapiImage) {
	f, err := g.from.Open(r.Context(), g.stream.Name)
	if err != nil {
		s.fail(w, http.StatusInternalServerError, "InternalError", err.Error())
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(g.stream.Size, 10))
	if r.Method == http.MethodHead {
		return
	}
	// A blob that is damaged breaks the connection off: the client must not take it for whole.
	if _, err := io.Copy(w, f); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// images reads what is in the layouts below the folder. What is no image of ours is passed over.
func (s imgapi) images(ctx context.Context) (list []imgapiImage, closer func(), err error) {
	var layouts []*registry.Layout
	closer = func() {
		for _, l := range layouts {
			l.Close()
		}
	}
	if s.dir == "" {
		return nil, closer, nil
	}
	seen := map[string]bool{}
	err = filepath.WalkDir(s.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() != "oci-layout" {
			return err
		}
		l, err := registry.OpenLayout(filepath.Dir(p))
		if err != nil {
			return err
		}
		layouts = append(layouts, l)
		tags, err := l.Tags(ctx)
		if err != nil {
			return err
		}
		for _, tag := range tags {
			m, err := registry.ReadImage(ctx, l, tag)
			if err != nil || seen[m.Digest()] {
				continue
			}
			seen[m.Digest()] = true
			more, err := imgapiImages(ctx, m)
			if err != nil {
				return err
			}
			list = append(list, more...)
		}
		return nil
	})
	if err != nil {
		closer()
		return nil, nil, err
	}
	return sortImages(list), closer, nil
}

func newIMGAPI(a *app) *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "imgapi REF… -o DIR",
		Short: "Write the files of an image source for imgadm of SmartOS, and the index that zadm of OmniOS reads",
		Long: "Writes ping, images/index.json, images/UUID/index.json and images/UUID/file for the streams of layout root in the\n" +
			"images, and img.json with the files it names for those that zadm can install. A web server that answers a name with\n" +
			"its index.json, as application/json, is then a source for imgadm sources -a. Image sources have no signatures:\n" +
			"whoever installs from one trusts the server and the way to it.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if out == "" {
				return badInput(errors.New("imgapi: -o DIR is missing"))
			}
			return a.imgapiTree(c.Context(), args, out)
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "the `FOLDER`; it is made if it is missing, and files in it are replaced")
	return c
}

func (a *app) imgapiTree(ctx context.Context, refs []string, dir string) error {
	var all []imgapiImage
	var index builder.ZadmIndex
	for _, name := range refs {
		m, store, err := a.open(ctx, name)
		if err != nil {
			return err
		}
		defer store.Close()
		more, err := imgapiImages(ctx, m)
		if err != nil {
			return err
		}
		all = append(all, more...)
		entries, err := zadmFiles(ctx, m, dir)
		if err != nil {
			return err
		}
		if len(more)+len(entries) == 0 {
			return badInput(fmt.Errorf("%q: the image has no stream for SmartOS or zadm: a zfs block makes one", name))
		}
		index.Images = append(index.Images, entries...)
	}
	all = sortImages(all)
	manifests := []json.RawMessage{}
	for i := range all {
		g := &all[i]
		at := filepath.Join(dir, "images", g.UUID)
		if err := exportArtifact(ctx, g.from, g.stream.Name, filepath.Join(at, "file")); err != nil {
			return err
		}
		if err := writeJSON(filepath.Join(at, "index.json"), g.raw); err != nil {
			return err
		}
		manifests = append(manifests, g.raw)
		a.printf("%s %s %s\n", g.UUID, g.Name, g.Version)
	}
	if len(index.Images) > 0 {
		slices.SortFunc(index.Images, func(a, b builder.ZadmImage) int { return strings.Compare(a.Path, b.Path) })
		if err := writeJSON(filepath.Join(dir, "img.json"), index); err != nil {
			return err
		}
	}
	// Last, as they promise the rest.
	err := errors.Join(
		writeJSON(filepath.Join(dir, "images", "index.json"), manifests),
		writeJSON(filepath.Join(dir, "ping"), json.RawMessage(pong)),
	)
	if err != nil {
		return err
	}
	return a.document(map[string]any{"images": manifests, "zadm": append([]builder.ZadmImage{}, index.Images...)})
}

// zadmFiles writes the streams of an image that zadm(8) can install, under the names that its index has.
func zadmFiles(ctx context.Context, m *registry.Image, dir string) ([]builder.ZadmImage, error) {
	var list []builder.ZadmImage
	for i := range m.Config.Artifacts {
		a := &m.Config.Artifacts[i]
		if a.MediaType != image.TypeZadm {
			continue
		}
		var index builder.ZadmIndex
		data, err := read(ctx, m, a.Name)
		if err == nil {
			err = json.Unmarshal(data, &index)
		}
		stream := m.Config.Artifact(strings.TrimSuffix(a.Name, "/zadm"))
		if err == nil && (stream == nil || len(index.Images) != 1 || "sha256:"+index.Images[0].SHA256 != stream.Digest || filepath.Base(index.Images[0].Path) != index.Images[0].Path) {
			err = errors.New("is not that of the stream beside it")
		}
		if err != nil {
			return nil, fmt.Errorf("image %s: artifact %q: %w", m.Digest(), a.Name, err)
		}
		if err := exportArtifact(ctx, m, stream.Name, filepath.Join(dir, index.Images[0].Path)); err != nil {
			return nil, err
		}
		list = append(list, index.Images...)
	}
	return list, nil
}

// exportArtifact writes an artifact to a file, verified, whose folder it makes.
func exportArtifact(ctx context.Context, m *registry.Image, name, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	r, err := m.Open(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	return writeFile(file, 0o644, func(w io.Writer) error {
		_, err := io.Copy(w, r)
		return err
	})
}

// writeJSON writes a document to a file, whose folder it makes.
func writeJSON(file string, v any) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return writeFile(file, 0o644, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		return e.Encode(v)
	})
}
