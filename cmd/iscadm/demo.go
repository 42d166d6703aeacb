package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/goldenisc/packer-plugin-isc/registry"
)

func newDemo(a *app) *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "demo",
		Short: "The whole story in a temporary folder: build, publish, clone, check, reset",
		Long: `Runs the whole story on this machine, without root and without a network but
loopback: an image for illumos and one for Linux are built from the embedded
skeletons (their service is this program itself, serving a page), signed,
published to an embedded registry, pulled and verified, cloned, started,
promoted, tampered with, checked and reset; forged and old images are offered
and refused, and one is withdrawn. Each step is a command that can be typed; what
it proves stands at the end.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				var err error
				if dir, err = os.MkdirTemp("", "iscadm-demo-*"); err != nil {
					return err
				}
			}
			d := &demo{app: a, ctx: c.Context(), dir: dir, start: time.Now()}
			return d.run()
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "`FOLDER` to work in; default a new temporary one")
	return c
}

// A demo is one run of the story. Its steps are command lines of this program, run in-process.
type demo struct {
	*app
	ctx    context.Context
	dir    string
	start  time.Time
	server *http.Server
	host   string // of the registry
	port   int    // of the service
	proved []string
}

// path names a file of the demo.
func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

func (d *demo) run() (err error) {
	defer func() {
		if d.server != nil {
			err = errors.Join(err, d.server.Close())
		}
	}()
	for _, step := range []struct {
		title string
		do    func() error
	}{
		{"Build an image for illumos and one for Linux, unprivileged and offline", d.build},
		{"Make a key, and sign and publish both as releases", d.publish},
		{"Pull the Linux image, verified by the key", d.pull},
		{"Promote it to another channel without a rebuild", d.promote},
		{"Clone the Linux image, start its service and fetch its page", d.clone},
		{"Tamper with the clone", d.tamper},
		{"Reset it to the golden state", d.reset},
		{"Tamper with the published image", d.forge},
		{"Offer an older release under the tag", d.rollBack},
		{"Withdraw the release", d.revoke},
	} {
		d.printf("\n== %s\n", step.title)
		if err := step.do(); err != nil {
			return fmt.Errorf("demo: %s: %w", strings.ToLower(step.title[:1])+step.title[1:], err)
		}
	}
	d.printf("\nWhat this proved, in %s:\n", time.Since(d.start).Round(100*time.Millisecond))
	for _, p := range d.proved {
		d.printf("  * %s\n", p)
	}
	d.printf("The files are in %s\n", d.dir)
	return d.document(map[string]any{"proved": d.proved, "dir": d.dir})
}

// prove notes a result for the summary.
func (d *demo) prove(format string, args ...any) {
	d.proved = append(d.proved, fmt.Sprintf(format, args...))
}

// command runs one command line, shows it with what it prints, and wants the exit status.
func (d *demo) command(want int, args ...string) (string, error) {
	shown := strings.ReplaceAll(strings.Join(args, " "), d.dir+string(filepath.Separator), "")
	d.printf("$ iscadm %s\n", shown)
	var out, diag bytes.Buffer
	status := run(d.ctx, args, strings.NewReader(""), &out, &diag)
	for _, text := range []string{diag.String(), out.String()} {
		for line := range strings.Lines(text) {
			d.printf("  %s\n", strings.ReplaceAll(strings.TrimSuffix(line, "\n"), d.dir+string(filepath.Separator), ""))
		}
	}
	if status != want {
		return "", fmt.Errorf("iscadm %s: exit status %d, not %d", args[0], status, want)
	}
	return strings.TrimSpace(out.String()), nil
}

// demoSpec is the spec of both images.
const demoSpec = `image {
  name    = "page-%[1]s"
  version = "1.0.0"
  os      = %[1]q
  arch    = %[2]q
}

base {
  source = "skeleton:%[1]s"
}

file {
  path   = "/opt/page/bin/iscadm"
  source = %[3]q
  mode   = "0555"
}

user {
  name = "page"
  uid  = 801
}

service {
  name   = "page"
  exec   = "/opt/page/bin/iscadm serve-page --listen 127.0.0.1:%[4]d"
  user   = "page"
  listen = ["%[4]d/tcp"]
}

limits {
  memory    = "256MiB"
  processes = 50
}
`

func (d *demo) build() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if d.port, err = freePort(); err != nil {
		return err
	}
	arch := "amd64"
	if runtime.GOARCH == "arm64" {
		arch = "arm64"
	}
	for _, system := range []string{"illumos", "linux"} {
		spec := d.path(system + ".isc.hcl")
		text := fmt.Sprintf(demoSpec, system, arch, filepath.ToSlash(self), d.port)
		if err := os.WriteFile(spec, []byte(text), 0o644); err != nil {
			return err
		}
		if _, err := d.command(0, "build", spec, "-o", "oci:"+d.path("out")+":"+system, "--check-reproducible"); err != nil {
			return err
		}
	}
	d.prove("one tree became an image for illumos and for Linux, twice with the same bytes")
	return nil
}

// freePort finds a port of the loopback that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (d *demo) publish() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	d.host = l.Addr().String()
	d.server = &http.Server{Handler: registry.Handler(d.path("registry")), ReadHeaderTimeout: 10 * time.Second}
	go d.server.Serve(l)
	if os.Getenv("COSIGN_PASSWORD") == "" { // nobody is asked in a demo
		if err := os.Setenv("COSIGN_PASSWORD", ""); err != nil {
			return err
		}
	}
	if _, err := d.command(0, "keygen", "-o", d.path("release")); err != nil {
		return err
	}
	for _, system := range []string{"illumos", "linux"} {
		from := "oci:" + d.path("out") + ":" + system
		if _, err := d.command(0, "sign", from, "--key", d.path("release.key"), "--channel", "candidate", "--state", d.path("state"), "--identity", d.host+"/isc/page-"+system); err != nil {
			return err
		}
		if _, err := d.command(0, "push", from, d.ref(system)); err != nil {
			return err
		}
	}
	d.prove("an OCI registry holds both with their signatures and releases; what is there already is not sent again")
	return nil
}

// ref is an image in the registry.
func (d *demo) ref(system string) string { return d.version(system, "1.0.0") }

func (d *demo) version(system, version string) string {
	return d.host + "/isc/page-" + system + ":" + version
}

// demoPolicy is whose images the host of the demo takes.
const demoPolicy = `key "release" {
  file = "release.pub"
}

rule %q {
  keys     = ["release"]
  channels = ["stable"]
}
`

func (d *demo) clone() error {
	policy := fmt.Sprintf(demoPolicy, d.host+"/isc")
	d.printf("$ cat policy.hcl\n")
	for line := range strings.Lines(policy) {
		d.printf("  %s", line)
	}
	if err := os.WriteFile(d.path("policy.hcl"), []byte(policy), 0o644); err != nil {
		return err
	}
	if _, err := d.command(0, "clone", d.ref("linux"), "web", "--to", "dir:"+d.path("instances"), "--state", d.path("state"), "--policy", d.path("policy.hcl")); err != nil {
		return err
	}
	if _, err := d.command(0, "start", "web", "--state", d.path("state")); err != nil {
		return err
	}
	page, err := d.fetch()
	if _, e := d.command(0, "stop", "web", "--state", d.path("state")); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if page != demoPage {
		return fmt.Errorf("the service served %q", page)
	}
	d.prove("a clone of the published image started its service, which served its page")
	return nil
}

// fetch gets the page of the service, which may need a moment to start.
func (d *demo) fetch() (string, error) {
	url := fmt.Sprintf("http://127.0.0.1:%d/", d.port)
	d.printf("$ curl %s\n", url)
	var last error
	for range 100 {
		page, err := get(d.ctx, url)
		if err == nil {
			d.printf("  %s\n", page)
			return page, nil
		}
		last = err
		select {
		case <-d.ctx.Done():
			return "", d.ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	return "", last
}

func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return strings.TrimSpace(string(data)), err
}

func (d *demo) tamper() error {
	if _, err := d.command(0, "check", "web", "--state", d.path("state")); err != nil {
		return err
	}
	passwd := d.path("instances", "web", "root", "etc", "passwd")
	f, err := os.OpenFile(passwd, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	d.printf("$ echo toor:x:0:0::/: >> instances/web/root/etc/passwd\n")
	_, err = f.WriteString("toor:x:0:0::/:\n")
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	out, err := d.command(statusNo, "check", "web", "--state", d.path("state"))
	if err != nil {
		return err
	}
	if !strings.Contains(out, `"/etc/passwd"`) {
		return errors.New("check did not name the file")
	}
	d.prove("check found the line that was added to /etc/passwd of the clone")
	return nil
}

func (d *demo) reset() error {
	if _, err := d.command(0, "reset", "-F", "web", "--state", d.path("state")); err != nil {
		return err
	}
	if _, err := d.command(0, "check", "--full", "web", "--state", d.path("state")); err != nil {
		return err
	}
	d.prove("reset gave the clone its golden state again, to the byte")
	return nil
}
